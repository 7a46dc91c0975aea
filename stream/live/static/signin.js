// Signing in: the token of the address' fragment, and a dialog that asks for token and name.
//
//   const token = tokenOfAddress()    the token of "/#token=…", taken out of the address at once; "" where there is none
//   const ask = signIn(net)           ask({token, must}) opens the dialog; `must`: it cannot be closed (nothing to see before)
//   await enter(net, ask, token)      signs in with a token from the address: at once where the name is known, else asks it
//
// The name is remembered in this browser, the token never: the daemon keeps the session in a cookie that scripts cannot read.

import { el, setText } from "./dom.js";

const NAME = "beamsieve.name";

function nameKept() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return ""; // storage switched off
  }
}

function keepName(name) {
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // it is asked again next time
  }
}

export function tokenOfAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
  if (given) history.replaceState(null, "", location.pathname + location.search);
  return given;
}

export function signIn(net) {
  const token = el("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
  const name = el("input", { type: "text", name: "name", autocomplete: "username", maxlength: "40", required: true });
  const said = el("p", { class: "said", role: "alert" });
  const enter = el("button", { type: "submit", class: "primary", text: "Sign in" });
  const leave = el("button", { type: "button", text: "Only look", onclick: () => dialog.close() });
  const form = el("form", { method: "dialog" }, el("h2", { text: "Sign in" }),
    el("p", { class: "hint", text: "The token is in the file that the daemon names when it starts. Your name stands beside every change and every mark you make." }),
    el("label", {}, "token", token), el("label", {}, "your name", name), said, el("div", { class: "actions" }, enter, leave));
  const dialog = el("dialog", { class: "sign-in", "aria-label": "Sign in" }, form);
  let must = false;
  dialog.addEventListener("cancel", (event) => must && event.preventDefault());
  dialog.addEventListener("close", () => must && !net.me?.signed_in && dialog.showModal()); // a second Escape closes it all the same
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    enter.disabled = true;
    try {
      await net.signIn(token.value.trim(), name.value.trim());
      keepName(name.value.trim());
      token.value = "";
      dialog.close();
    } catch (error) {
      setText(said, `Not signed in: ${error.message}.`);
    } finally {
      enter.disabled = false;
    }
  });
  document.body.append(dialog);
  net.on("me", (me) => me.signed_in && dialog.open && dialog.close());
  return (given = {}) => {
    must = given.must ?? false;
    leave.hidden = must;
    setText(said, given.said ?? "");
    if (given.token) token.value = given.token;
    name.value ||= nameKept();
    if (!dialog.open) dialog.showModal();
    (token.value ? name : token).focus();
  };
}

export async function enter(net, ask, token) {
  const name = nameKept();
  const must = net.me?.needs_sign_in ?? false;
  if (!name) return ask({ token, must });
  try {
    return await net.signIn(token, name);
  } catch (error) {
    return ask({ token, must, said: `Not signed in: ${error.message}.` });
  }
}
