// The quiz: asks one trial after the other, and measures how long each answer takes. The server's pages and the page in one
// file have it in common. They differ in where trials come from and where answers go: `ofServer` and `ofFile`.

const $ = id => document.getElementById(id);
const STEPS = ["start", "intro", "trial", "last", "stopped", "done"];
const NAMING = 1, CHOICE = 2;
const LARGEST = 448;  // pixels of the screen that an image's longer side takes at most

function show(step) {
  for (const each of STEPS) if ($(each)) $(each).hidden = each !== step;
  scrollTo(0, 0);
}

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Where trials come from. state(), answer(given) and end(seen) give how far the session is, with the next trial:
// {done, of, ended, keys, trial, block, options}; image(state) gives the address of its image.

function ofServer(address) {
  async function call(path, given) {
    const token = document.body.dataset.formToken;
    const sent = given && { method: "POST", headers: { "x-form-token": token }, body: JSON.stringify(given) };
    const reply = await fetch(address + path, sent);
    if (!reply.ok) throw new Error(await reply.text());
    return reply.json();
  }
  return {
    begin: given => call("/begin", given),
    state: () => call("/now"),
    answer: given => call("/answer", given),
    end: seen => call("/end", { seen }),
    image: state => `${address}/${state.trial}.png`,
    silent: "The server does not answer.",
    hint: "If the quiz was ended, start it again, open its new address, and give the same pseudonym.",
    done: () => location.reload(),
  };
}

// One trial

let source, state, shownAt = null, lastBlock = null, pending = null;
const keyOf = new Map();  // by key the button that it presses

function proceed(next) {
  state = next;
  if (state.ended) { source.done(); return; }
  if (state.done === state.of) { show("last"); $("last-title").focus(); return; }
  if (state.block !== lastBlock) introduce();
  else ask();
}

function introduce() {
  const keys = state.keys, naming = state.block === NAMING;
  $("intro-title").textContent = naming ? "First part: what is it?" : "Second part: which of these?";
  $("intro-text").textContent = naming
    ? (keys ? "Press what you see in the image, or Nothing." : "Write what you see in the image, in a word or two. If you see nothing, leave it empty.")
    : "The images come again, in another order, each with a list. Choose what the image shows, or Nothing of these.";
  const first = keys ? `Keys ${keys.join(" ")}: what you see` : naming ? "Enter: the next image" : "Keys 1 to 9 and 0: the options, as numbered";
  const nothing = naming && !keys ? [] : [`${nothingKey().name}: nothing${naming ? "" : " of these"}`];
  $("intro-keys").replaceChildren(...[first, ...nothing].map(text => element("li", text)));
  $("ready").textContent = state.done ? "Show the next image" : "Show the first image";
  lastBlock = state.block;
  show("intro");
  $("intro-title").focus();
}

// N stands for nothing, unless a label is an N.
function nothingKey() {
  return (state.keys || []).some(label => label.toLowerCase() === "n") ? { key: " ", name: "Space" } : { key: "n", name: "N" };
}

function button(text, hint, keys, response) {
  const made = element("button", "", { type: "button" });
  if (hint) made.append(element("kbd", hint), " ");
  made.append(element("span", text));
  made.addEventListener("click", event => { if (event.detail < 2) give(response, event.timeStamp); });
  for (const key of keys) keyOf.set(key, made);
  return made;
}

async function ask() {
  const naming = state.block === NAMING, typed = naming && !state.keys;
  const labels = naming ? state.keys || [] : state.options;
  const nothing = nothingKey();
  hide();
  keyOf.clear();
  $("question").textContent = naming ? "What is it?" : "Which of these?";
  $("progress").max = state.of;
  $("progress").value = state.done;
  $("progress-text").textContent = `${state.done + 1} of ${state.of}`;
  $("trial").classList.toggle("beside", !naming && !state.keys);
  $("typing").hidden = !typed;
  $("name").value = "";
  $("buttons").className = `buttons ${state.keys ? (labels.length > 12 ? "many" : "keypad") : "options"}`;
  $("buttons").replaceChildren(...typed ? [] : [
    ...labels.map((label, k) => {
      const hint = state.keys || k > 9 ? "" : String((k + 1) % 10);
      return button(label, hint, [state.keys ? label : hint], naming ? label : k);
    }),
    button(naming ? "Nothing" : "Nothing of these", nothing.name, [nothing.key], naming ? "" : labels.length),
  ]);
  show("trial");
  const image = $("image");
  image.src = source.image(state);
  try {
    await image.decode();
  } catch {
    stop(new TypeError("the image"), () => source.state());
    return;
  }
  const side = Math.max(image.naturalWidth, image.naturalHeight);
  const room = Math.min(LARGEST, document.documentElement.clientWidth - 40, Math.max(224, innerHeight * 0.57));
  const factor = side > room ? room / side : Math.floor(room / side);
  image.classList.toggle("smooth", factor < 1);
  image.width = Math.round(image.naturalWidth * factor);
  image.height = Math.round(image.naturalHeight * factor);
  image.parentElement.style.minHeight = `${image.height}px`;  // of all images the same: nothing moves between two
  (typed ? $("name") : $("question")).focus({ preventScroll: true });
  // The second frame begins when the first one, with the image in it, has been painted.
  requestAnimationFrame(() => {
    image.classList.add("shown");
    requestAnimationFrame(() => { shownAt = performance.now(); $("trial").dataset.shown = state.trial; });
  });
}

function hide() {
  shownAt = null;
  $("image").classList.remove("shown");
  delete $("trial").dataset.shown;
}

function give(response, at) {
  if (shownAt === null) return;
  const given = { trial: state.trial, response, rt: Math.max(0, at - shownAt) };
  hide();
  attempt(() => source.answer(given));
}

async function attempt(what) {
  let next;
  try {
    next = await what();
  } catch (error) {
    stop(error, what);
    return;
  }
  proceed(next);
}

// What failed is tried again when the rater says so. An answer that is stored already is not stored twice.
function stop(error, what) {
  const gone = error instanceof TypeError;  // as of fetch: nobody answers
  $("stopped-text").textContent = gone ? source.silent : error.message;
  $("stopped-hint").textContent = source.hint;
  pending = what;
  show("stopped");
  $("stopped-title").focus();
}

$("again")?.addEventListener("click", () => attempt(pending));
$("ready")?.addEventListener("click", ask);
$("answer")?.addEventListener("submit", event => {
  event.preventDefault();
  give($("name").value, event.timeStamp);
});
$("nothing")?.addEventListener("click", event => give("", event.timeStamp));
$("not-seen")?.addEventListener("click", () => attempt(() => source.end(false)));
$("was-seen")?.addEventListener("click", () => attempt(() => source.end(true)));

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Enter" && $("intro") && !$("intro").hidden && event.target !== $("ready")) ask();
  if (!$("trial") || $("trial").hidden || event.target.closest("input")) return;
  const pressed = keyOf.get(event.key) || keyOf.get(event.key.toLowerCase());
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
});

// The first page

function about() {
  const viewport = `${innerWidth}x${innerHeight}`;
  return { rater: $("rater").value.trim(), seen: $("seen").checked, viewport, dpr: devicePixelRatio };
}

function fault(text) {
  $("fault").textContent = text;
  $("fault").hidden = false;
}

function onBegin(begin) {
  async function attemptToBegin(given) {
    $("fault").hidden = true;
    document.querySelectorAll("#start button").forEach(each => { each.disabled = true; });
    try {
      await begin(given);
    } catch (error) {
      fault(error instanceof TypeError ? "The server does not answer." : error.message);
    }
    document.querySelectorAll("#start button").forEach(each => { each.disabled = false; });
  }
  $("begin").addEventListener("submit", event => { event.preventDefault(); attemptToBegin(about()); });
  document.querySelectorAll(".resume").forEach(each => {
    each.addEventListener("click", () => attemptToBegin({ ...about(), rater: each.dataset.rater }));
  });
}

// A page in one file: sessions that were drawn when it was made, of which each rater gets one by chance.

function stored(name) {
  let kept = null;  // where the browser keeps nothing, until the page is closed
  return {
    get: () => { try { return JSON.parse(localStorage.getItem(name)) ?? kept; } catch { return kept; } },
    set: value => {
      kept = value;
      try { localStorage.setItem(name, JSON.stringify(value)); return true; } catch { return false; }
    },
    clear: () => { kept = null; try { localStorage.removeItem(name); } catch { /* nothing was kept */ } },
  };
}

// Two raters of one page may choose the same pseudonym, so some random letters are added. In one browser a pseudonym keeps
// them: who takes part again is the same rater.
function withLetters(rater) {
  const known = stored("evofool-quiz-raters"), all = known.get() ?? {}, key = rater.toLowerCase();
  if (!Object.hasOwn(all, key)) {
    all[key] = Array.from(crypto.getRandomValues(new Uint8Array(5)), byte => (byte % 32).toString(32)).join("");
    known.set(all);
  }
  return `${rater}-${all[key]}`;
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

function ofFile(page) {
  const memory = stored(`evofool-quiz-${page.id}`);
  let session = null;
  const now = kept => {
    const done = kept.answers.length, of = session.trials.length;
    return { done, of, ended: kept.seen !== null, keys: page.keys, ...session.trials[done] };
  };
  async function load() { session = await unpacked(page.sessions[memory.get().drawn]); }
  return {
    begun: () => memory.get() !== null,
    begin: async given => {
      const drawn = crypto.getRandomValues(new Uint32Array(1))[0] % page.sessions.length;
      memory.set({ drawn, rater: withLetters(given.rater), known: given.seen, seen: null, began: Date.now(), answers: [] });
    },
    state: async () => { await load(); return now(memory.get()); },
    answer: async ({ trial, response, rt }) => {
      const kept = memory.get();
      if (session.trials[kept.answers.length]?.trial === trial) {
        kept.answers.push([response, rt, Date.now() - kept.began]);
        if (!memory.set(kept)) $("kept").hidden = false;
      }
      return now(kept);
    },
    end: async seen => {
      const kept = { ...memory.get(), ended: new Date().toISOString() };
      kept.seen = seen || kept.known;
      memory.set(kept);
      return now(kept);
    },
    image: state => `data:image/png;base64,${session.images[state.image]}`,
    silent: "This browser cannot show the image.",
    hint: "Save this page as a file, if it was opened in a mail program, and open that in another browser.",
    done: () => finish(memory.get(), session),
    clear: memory.clear,
  };
}

const COLUMNS = ["participant", "trial_index", "trial_type", "trial", "response", "rt", "time_elapsed", "ended", "seen"];

function csvOf(kept, session) {
  // A spreadsheet would take some texts for formulas: an apostrophe in front, as in all tables of evofool.
  const cell = value => `"${String(value).replace(/^(?=[=+\-@\t\r])/, "'").replaceAll('"', '""')}"`;
  const rows = kept.answers.map(([response, rt, elapsed], n) => {
    const { trial, block } = session.trials[n], kind = block === CHOICE ? "choice" : "naming";
    return [cell(kept.rater), n, kind, trial, cell(response), rt.toFixed(1), elapsed, kept.ended, Number(kept.seen)];
  });
  return [COLUMNS, ...rows].map(row => row.join(",")).join("\r\n") + "\r\n";
}

function finish(kept, session) {
  const name = `quiz-${kept.rater.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40)}.csv`;
  const link = $("download");
  link.href = URL.createObjectURL(new Blob([csvOf(kept, session)], { type: "text/csv" }));
  link.download = name;
  $("done-text").textContent = `${kept.answers.length} answers of ${kept.rater}.`;
  show("done");
  $("done-title").focus();
}

async function start() {
  if ($("session")) {
    source = ofServer($("session").dataset.session);
    await attempt(() => source.state());
  } else if ($("sessions")) {
    if (typeof DecompressionStream === "undefined") {
      fault("This browser is too old for the quiz. Open the page in a current Firefox, Chrome, Edge or Safari.");
      document.querySelectorAll("#start button").forEach(each => { each.disabled = true; });
    } else {
      source = ofFile(JSON.parse($("sessions").textContent));
      $("anew").addEventListener("click", () => { source.clear(); location.reload(); });
      $("download").addEventListener("click", () => { $("anew").disabled = false; });
      onBegin(async given => { await source.begin(given); await attempt(() => source.state()); });
      if (source.begun()) await attempt(() => source.state());
    }
  } else if ($("start")) {
    const address = $("start").dataset.quiz;
    onBegin(async given => { location.href = `${address}/${(await ofServer(address).begin(given)).session}`; });
  }
  document.documentElement.dataset.ready = "yes";  // for tests: buttons have an effect from now on
}

start();
