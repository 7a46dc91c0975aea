// What is known of the session in this browser: rows, pictures, the chosen micrograph; and who wants to hear of it.

const MOST_ROWS = 5000;
const MOST_PICTURES = 24;
const MOST_PARTICLES = 60;
const FACTS_MS = 2000;

/** Events: `rows`, `snapshot`, `chosen`, `micrographs`, `particles`. `tick` tells each kind at most once a frame. */
export class Session {
  #hearers = new Map();
  #pending = new Set();
  #factsAt = 0;
  #factsTimer = 0;

  /** `fetchFacts()` fetches the facts anew, and gives a promise; they come by `facts`. */
  constructor(fetchFacts) {
    this.fetchFacts = fetchFacts;
    this.rows = []; // newest last
    this.byId = new Map();
    this.numbers = {};
    this.snapshot = null;
    this.version = null;
    this.micrographs = []; // pictures, newest last
    this.particles = [];
    this.chosen = null; // id
    this.following = true;
  }

  on(kind, hear) {
    if (!this.#hearers.has(kind)) this.#hearers.set(kind, []);
    this.#hearers.get(kind).push(hear);
  }

  /** Tell `kind` with the next frame that is drawn; a hidden page hears of it when it is seen again. */
  tell(kind) {
    if (this.#pending.size === 0) requestAnimationFrame(() => this.#flush());
    this.#pending.add(kind);
  }

  #flush() {
    const kinds = [...this.#pending];
    this.#pending.clear();
    for (const kind of kinds) for (const hear of this.#hearers.get(kind) ?? []) hear();
  }

  /** The facts came: all rows anew. */
  facts(facts) {
    this.numbers = facts.numbers ?? {};
    this.version = facts.rows_version ?? this.version;
    this.rows = (facts.rows ?? []).slice(-MOST_ROWS);
    this.byId = new Map(this.rows.map((row) => [String(row.id), row]));
    if (this.chosen === null && this.rows.length) this.choose(String(this.rows.at(-1).id), { follow: true });
    this.tell("rows");
  }

  /** The state of this second. */
  state(snapshot) {
    this.snapshot = snapshot;
    let fresh = false;
    const first = snapshot.rows?.[0];
    // The oldest of the rows that come each second is new: those before it were missed, as by a page that was asleep.
    if (first && this.rows.length && !this.byId.has(String(first.id))) this.#again();
    for (const row of snapshot.rows ?? []) fresh = this.#row(row) || fresh;
    if (this.rows.length > MOST_ROWS) {
      for (const row of this.rows.splice(0, this.rows.length - MOST_ROWS)) this.byId.delete(String(row.id));
    }
    if (fresh) this.tell("rows");
    if (snapshot.rows_version !== undefined && snapshot.rows_version !== this.version) this.#again();
    this.tell("snapshot");
  }

  #row(row) {
    const id = String(row.id);
    const old = this.byId.get(id);
    if (old === undefined) this.rows.push(row);
    else if (JSON.stringify(old) === JSON.stringify(row)) return false;
    else this.rows[this.rows.lastIndexOf(old)] = row;
    this.byId.set(id, row);
    return true;
  }

  /** Older rows changed: the facts anew, every two seconds at most. */
  #again() {
    if (this.#factsTimer) return;
    const wait = Math.max(0, this.#factsAt + FACTS_MS - Date.now());
    this.#factsTimer = setTimeout(async () => {
      this.#factsAt = Date.now();
      try {
        await this.fetchFacts();
      } catch {
        // The connection is lost; the next snapshot asks again.
      } finally {
        this.#factsTimer = 0;
      }
    }, wait);
  }

  /** A picture came. */
  picture(picture) {
    if (picture.group === "micrograph") {
      this.micrographs = kept(this.micrographs, picture, MOST_PICTURES);
      if (this.following || this.chosen === null) this.choose(String(picture.id), { follow: true });
      this.tell("micrographs");
    } else if (picture.group === "particle") {
      this.particles = kept(this.particles, picture, MOST_PARTICLES);
      this.tell("particles");
    }
  }

  /** Look at this micrograph; one that a person chose is kept until they follow the newest again. */
  choose(id, { follow = false } = {}) {
    this.following = follow;
    if (id !== this.chosen) this.chosen = id;
    this.tell("chosen");
  }

  /** Follow the newest from now on, or stay. */
  follow(on) {
    const newest = this.micrographs.at(-1) ?? this.rows.at(-1);
    this.following = on;
    if (on && newest) this.choose(String(newest.id), { follow: true });
    else this.tell("chosen");
  }

  /** The chosen row, or what its picture says of it. */
  get row() {
    return this.byId.get(this.chosen) ?? this.micrographs.find((picture) => String(picture.id) === this.chosen) ?? null;
  }
}

function kept(pictures, picture, most) {
  return [...pictures.filter((other) => other.id !== picture.id), picture].slice(-most);
}
