// The one connection to the daemon. All addresses are relative, so that the page also works behind a proxy's prefix.
//
//   const net = new Net();  await net.start();
//   net.me         {signed_in, name, needs_sign_in, beamline}, or null before the first answer
//   net.facts      the last answer of live/facts;  net.snapshot  the last snapshot;  both null before
//   net.up         whether snapshots come;  net.since  Unix seconds since when they do not
//   net.on(event, handler)   gives a function that takes the handler away again. A handler of "facts" or "snapshot" that
//                  comes late is called at once with what is there. Events:
//                    trouble({problems}): what went wrong in the daemon's own page code, until it is empty again
//                    sleep(true): hidden for long, connection given back
//                    me(me)  facts(facts)  snapshot(snapshot)  picture(picture)  connection({up, since})
//                  "facts" comes again after every reconnection and after net.refresh(): replace, do not append.
//                  A picture may come twice (after a reconnection): know it by its id.
//   net.act(action, body)        POST live/act/…; the answer, or an Error whose message is the daemon's own reason
//   net.array(kind, name, query) GET live/blob/…: {head, shape, data}, data a typed array (f4, u1, u2, i2, i4, u4)
//   net.json(kind, name, query)  GET live/blob/… that is JSON
//   net.refresh()                fetches the facts again (rows_version has changed)
//   net.signIn(token, name), net.signOut()
//   net.ended      whether the session has ended without this tab's doing, until somebody signs in
//   net.whyLocked()              why nothing may be changed now, as text; "" where it may
//   lock(net, controls, reason, why)  disables controls while nothing may be changed, and writes why into `reason`
//                  (an element, or null). `why`: an extra () => text, asked after net's own. Gives a function to ask again.

import { setText } from "./dom.js";

const HEADERS = { "Content-Type": "application/json", "X-Beamsieve": "1" };
const ARRAYS = { f4: Float32Array, u1: Uint8Array, u2: Uint16Array, i2: Int16Array, i4: Int32Array, u4: Uint32Array };
const QUIET_S = 12; // without a snapshot for so long, the connection is taken for dead
const HIDDEN_S = 10; // a tab hidden for so long gives its connection back: a browser has six to a host

const EARLY = 300; // pictures that are kept for a handler that is yet to come

const now = () => Date.now() / 1000;

async function refusal(answer) {
  let text = "";
  try {
    text = (await answer.json()).error;
  } catch {
    text = "";
  }
  const usual = { 401: "sign in first", 403: "refused", 404: "no longer kept", 429: "too many requests: wait a little" };
  const error = new Error(text || usual[answer.status] || `the daemon answered ${answer.status}`);
  error.status = answer.status;
  return error;
}

function wordsOf(dtype) {
  return ARRAYS[dtype.replace(/^[<|=]/, "").replace(/^uint8$/, "u1").replace(/^float32$/, "f4")];
}

export class Net {
  constructor() {
    this.me = null;
    this.facts = null;
    this.snapshot = null;
    this.up = false;
    this.since = now();
    this.heard = now();
    this.handlers = {};
    this.early = [];
    this.source = null;
    this.timer = 0;
    this.tries = 0;
    this.attempt = 0;
    this.ended = false;
    this.others = null;
  }

  on(event, handler) {
    (this.handlers[event] ??= new Set()).add(handler);
    const had = { facts: this.facts, snapshot: this.snapshot, me: this.me }[event];
    if (had) handler(had);
    if (event === "picture") {
      this.early.forEach(handler);
      setTimeout(() => (this.early = []), 1000); // the other panels are made meanwhile, and get them too
    }
    return () => this.handlers[event].delete(handler);
  }

  emit(event, value) {
    // The daemon gives each picture once, and the first may come before the file that shows them is loaded.
    if (event === "picture" && !this.handlers.picture?.size) {
      this.early.push(value);
      this.early.splice(0, this.early.length - EARLY);
      return;
    }
    for (const handler of this.handlers[event] ?? []) {
      try {
        handler(value);
      } catch (error) {
        console.error(error); // one panel's mistake must not silence the others
      }
    }
  }

  async get(address) {
    const answer = await fetch(address, { cache: "no-store", credentials: "same-origin" });
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }

  async post(address, body) {
    const sent = { method: "POST", headers: HEADERS, credentials: "same-origin", body: JSON.stringify(body) };
    const answer = await fetch(address, sent);
    if (!answer.ok) throw await refusal(answer);
    return answer.json();
  }

  async start() {
    document.addEventListener("visibilitychange", () => this.shown());
    setInterval(() => this.watch(), 2000);
    this.others = new BroadcastChannel("beamsieve"); // tabs share the session's cookie
    this.others.onmessage = () => this.heardOfOthers();
    await this.connect();
  }

  async ask() {
    const me = await (await this.get("live/me")).json();
    this.ended = !me.signed_in && (this.ended || Boolean(this.me?.signed_in));
    this.me = me;
    this.emit("me", me);
    return me;
  }

  async refresh() {
    this.facts = await (await this.get("live/facts")).json();
    this.emit("facts", this.facts);
  }

  async connect() {
    clearTimeout(this.timer);
    this.close();
    const attempt = ++this.attempt; // a tab that is hidden and shown asks again while the first asking still waits
    try {
      const me = await this.ask();
      if (me.needs_sign_in && !me.signed_in) return; // signIn() connects again
      await this.refresh();
    } catch {
      if (attempt === this.attempt) this.lost();
      return;
    }
    if (attempt === this.attempt) this.listen();
  }

  listen() {
    const source = new EventSource("live/events");
    this.source = source;
    this.heard = now();
    source.addEventListener("snapshot", (event) => this.take("snapshot", event));
    source.addEventListener("picture", (event) => this.take("picture", event));
    source.addEventListener("trouble", (event) => this.emit("trouble", JSON.parse(event.data)));
    source.onerror = () => source === this.source && this.lost();
  }

  take(name, event) {
    this.heard = now();
    const value = JSON.parse(event.data);
    if (!this.up) {
      this.up = true;
      this.tries = 0;
      this.emit("connection", { up: true, since: this.heard });
    }
    if (name === "snapshot") this.snapshot = value;
    this.emit(name, value);
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  lost() {
    this.close();
    if (this.up || this.tries === 0) this.since = now();
    this.up = false;
    this.emit("connection", { up: false, since: this.since });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), Math.min(5000, 500 * 2 ** this.tries++));
  }

  watch() {
    if (this.source && !document.hidden && now() - this.heard > QUIET_S) this.lost();
  }

  shown() {
    clearTimeout(this.rest);
    if (document.hidden) this.rest = setTimeout(() => this.sleep(), 1000 * HIDDEN_S);
    else if (!this.source) this.connect();
  }

  sleep() {
    clearTimeout(this.timer);
    this.attempt++;
    this.close();
    this.up = false; // shown again, it may have to wait for a connection, and must not pass for new meanwhile
    this.since = this.heard;
    this.emit("connection", { up: false, since: this.since });
    this.emit("sleep", true);
  }

  act(action, body) {
    return this.post(`live/act/${encodeURIComponent(action)}`, body).catch((error) => {
      if (error.status === 401) this.ask().catch(() => {}); // the session has ended: show it
      throw error;
    });
  }

  blob(kind, name, query = {}) {
    const asked = new URLSearchParams(query).toString();
    return this.get(`live/blob/${encodeURIComponent(kind)}/${encodeURIComponent(name)}${asked ? `?${asked}` : ""}`);
  }

  async json(kind, name, query) {
    return (await this.blob(kind, name, query)).json();
  }

  async array(kind, name, query) {
    const answer = await this.blob(kind, name, query);
    const head = JSON.parse(answer.headers.get("X-Beamsieve") ?? "{}");
    const Words = wordsOf(head.dtype ?? "");
    if (!Words) throw new Error(`the page cannot read numbers of type ${head.dtype}`);
    return { head, shape: head.shape, data: new Words(await answer.arrayBuffer()) };
  }

  async signIn(token, name) {
    await this.post("login", { token, name });
    this.others.postMessage("me");
    await (this.source ? this.ask() : this.connect());
  }

  async signOut() {
    await this.post("logout", {});
    this.others.postMessage("me");
    this.me = { ...this.me, signed_in: false };
    await this.ask();
  }

  // A tab that sleeps asks when it is shown again.
  heardOfOthers() {
    if (this.source) this.ask().catch(() => {});
    else if (!document.hidden) this.connect();
  }

  whyLocked() {
    if (!this.up) return "No connection to the daemon.";
    return this.me?.signed_in ? "" : "Sign in to change anything.";
  }
}

export function lock(net, controls, reason = null, why = () => "") {
  const ask = () => {
    const text = net.whyLocked() || why();
    for (const control of controls) {
      if (control.disabled !== Boolean(text)) control.disabled = Boolean(text);
      if (control.title !== text) control.title = text;
    }
    if (reason) setText(reason, text);
  };
  net.on("me", ask);
  net.on("connection", ask);
  ask();
  return ask;
}
