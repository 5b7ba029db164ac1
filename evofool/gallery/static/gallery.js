// The script of all pages: keys, the live grid, the replay of a run and the line of descent. Every page works without it.
// In a static copy it finds and sorts images itself, and replays what is in the page: there is no server, perhaps only a file.

const $ = id => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const thousands = number => Number(number).toLocaleString("en-US");

const files = document.body.dataset.static === "yes";
const data = $("data") ? JSON.parse($("data").textContent) : null;

// Keys

function go(link) { if (link) location.href = link.href; }

function tiles() { return [...document.querySelectorAll(".grid a.tile")]; }

function step(by) {
  const all = tiles(), at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
  if (next) next.focus();
}

let before = "";
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // A tick takes no letters: a run that was just ticked has the focus.
  if (event.target.closest("input:not([type=checkbox]), select, textarea") || $("keys").open) return;
  const key = event.key, pair = before + key;
  before = key === "g" ? "g" : "";
  const act = {
    "/": () => {
      const fold = $("search") && $("search").closest("details");
      if (fold) fold.open = true;  // on a phone it is closed
      if ($("search")) $("search").focus();
    },
    "x": () => pick(document.activeElement),
    "c": () => { if ($("compare")) $("compare").click(); },
    "j": () => step(1), "k": () => step(-1),
    "ArrowRight": () => $("after") ? go($("after")) : step(1),
    "ArrowLeft": () => $("before") ? go($("before")) : step(-1),
    "Escape": () => go($("up")),
    "?": () => $("keys").showModal(),
  }[key] || (pair === "gh" ? () => go($("home")) : null);
  if (!act || (key.startsWith("Arrow") && !$("after") && !$("before") && !document.activeElement.matches("a.tile"))) return;
  event.preventDefault();
  act();
});
if ($("show-keys")) {
  $("show-keys").hidden = false;
  $("show-keys").onclick = () => $("keys").showModal();
}

// Exactly two runs can be compared.

if ($("compare")) {
  const boxes = [...document.querySelectorAll('input[name="run"]')];
  const look = () => { $("compare").disabled = boxes.filter(box => box.checked).length !== 2; };
  boxes.forEach(box => box.addEventListener("change", look));
  addEventListener("pageshow", look);  // ticks that a browser has restored
}

// Images that are chosen for an export.

function pick(tile) {
  const box = tile.matches("a.tile") && tile.parentElement.querySelector(".pick");
  if (box) box.click();
}

// The numbers as ranges, "0-9,12": thousands of them have to fit into an address.
function ranges(numbers) {
  const found = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = found[found.length - 1];
    if (last && last[1] + 1 === number) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([first, last]) => first === last ? first : `${first}-${last}`).join(",");
}

if ($("selection")) {
  const boxes = [...document.querySelectorAll(".pick")], form = $("selection");
  const chosen = () => boxes.filter(box => box.checked);
  const look = () => {
    const count = chosen().length;
    $("grid").classList.toggle("choosing", count > 0);
    $("chosen").textContent = count ? `${thousands(count)} chosen` : "Tick images to choose them.";
    $("export").disabled = !count;
    $("choose-none").hidden = !count;
  };
  const set = checked => { boxes.forEach(box => { box.checked = checked; }); look(); };
  $("choose-all").hidden = false;
  $("choose-all").onclick = () => set(true);
  $("choose-none").onclick = () => set(false);
  boxes.forEach(box => box.addEventListener("change", look));
  form.addEventListener("submit", event => {
    event.preventDefault();
    location.href = `${form.getAttribute("action")}?cells=${ranges(chosen().map(box => Number(box.value)))}`;
  });
  addEventListener("pageshow", look);
}

// Selects apply at once.

if ($("choose") && !files) $("choose").querySelectorAll("select").forEach(select => {
  select.addEventListener("change", () => $("choose").requestSubmit());
});

// In a static copy, images are found and sorted here.

if ($("choose") && files) {
  const form = $("choose"), inGrid = Boolean($("grid"));
  const items = [...document.querySelectorAll("#grid > li, table.runs tbody tr")];
  const levels = new Map(items.map(item => [item, Number((item.innerHTML.match(/tile level-(\d)/) || [0, 0])[1])]));
  const said = item => (inGrid ? item.querySelector(".label") : item).textContent.toLowerCase();
  function apply() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const least = form.elements.least ? form.elements.least.selectedIndex : 0;
    let shown = 0;
    for (const item of items) {
      const text = said(item), number = item.dataset.cell && String(Math.floor(item.dataset.cell / $("grid").dataset.niches));
      item.hidden = levels.get(item) < least || !words.every(word => text.includes(word) || word === number);
      shown += !item.hidden;
    }
    if (!inGrid) return;
    const byCell = new Map(items.map(item => [Number(item.dataset.cell), item]));
    $("grid").append(...data.orders[form.elements.sort.value].map(cell => byCell.get(cell)).filter(Boolean));
    $("count").textContent = `${thousands(shown)} of ${thousands(items.length)} images.`;
  }
  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
  for (const name of ["input", "change"]) form.addEventListener(name, apply);
}

// Work that a page starts: one command at a time, in the background.

const job = { box: $("job"), text: $("job-text"), stop: $("job-stop"), again: $("job-again"), timer: null };

async function post(address, start = null) {
  const answer = await fetch(address, { method: "POST", headers: { "x-form-token": document.body.dataset.formToken } });
  if (!answer.ok) {
    job.box.hidden = false;
    job.stop.hidden = true;
    job.text.textContent = await answer.text();
    return;
  }
  follow(await answer.json());
  if (start) start.dispatchEvent(new Event("started"));
}

function follow(state) {
  clearTimeout(job.timer);
  if (!state) return;
  const how = state.stopped ? "stopped" : state.failed ? "failed" : "ended";
  job.box.hidden = false;
  job.box.classList.toggle("fault", state.failed);
  job.text.textContent = state.ended ? `Command ${state.number} ${how}: ${state.title}. ${state.line}` : `Under way: ${state.title}. ${state.line}`;
  job.stop.hidden = state.ended;
  job.again.hidden = !state.ended;
  job.again.href = location.href;
  if (state.ended) sessionStorage.setItem("evofool-seen", state.number);
  else job.timer = setTimeout(look, 700);
}

async function look() {
  const answer = await fetch("/job");
  if (answer.ok) follow(await answer.json());
}

if (job.box) {
  job.stop.onclick = () => post("/job/stop");
  document.querySelectorAll(".start").forEach(start => {
    start.hidden = false;
    if (start.matches("form")) start.addEventListener("submit", event => {
      event.preventDefault();
      post(`${start.dataset.post}?${new URLSearchParams(new FormData(start))}`, start);
    });
    else start.onclick = () => post(start.dataset.post);
  });
  // A command that another page has started is shown here, too, until its end was seen once.
  fetch("/job").then(answer => answer.ok ? answer.json() : null).then(state => {
    if (state && !(state.ended && sessionStorage.getItem("evofool-seen") === String(state.number))) follow(state);
  });
}

// The live grid

const grid = $("grid");

// Put the image of an address into a tile, or nothing. which: 0, or 1 for the image to compare with.
function setImage(item, which, picture, text) {
  const slot = item.querySelectorAll(".slot")[which], label = item.querySelector(".label").textContent.trim();
  if (!slot) return false;
  if (!picture) { slot.replaceChildren(); return false; }
  let image = slot.querySelector("img");
  if (!image) {
    image = document.createElement("img");
    slot.append(image);
  }
  image.alt = `Image of class ${label}, confidence ${text}`;
  if (image.getAttribute("src") === picture) return false;
  image.src = picture;
  return true;
}

function setTile(item, picture, text, level) {
  const changed = setImage(item, 0, picture, text);
  item.querySelector(".p b").textContent = text;
  item.querySelector("a.tile").className = `tile level-${level}`;
  return changed;
}

let saidAt = 0;
function setStanding(now) {
  const set = (name, text) => { document.querySelector(`[data-fact="${name}"]`).textContent = text; };
  // A screen reader is told at most once in five seconds.
  const told = performance.now();
  $("standing").setAttribute("aria-live", told - saidAt > 5000 ? "polite" : "off");
  if (told - saidAt > 5000) saidAt = told;
  set("evaluations", thousands(now.evaluations));
  set("high", thousands(now.high));
  set("cells", thousands(now.cells));
  set("median", now.median);
  set("time", now.time);
  set("state", now.finished ? `ended: ${now.finished}` : "not ended");
  const slider = $("at");
  if (slider && Number(slider.value) === Number(slider.max)) {
    slider.max = now.evaluations;
    slider.value = now.evaluations;
    $("at-text").textContent = `${thousands(now.evaluations)} evaluations`;
  } else if (slider) slider.max = now.evaluations;
}

function live() {
  const run = grid.dataset.run, items = new Map([...grid.children].map(item => [Number(item.dataset.cell), item]));
  const missing = new Set(), query = new URLSearchParams(location.search);
  const all = !query.get("text") && !Number(query.get("least"));
  let first = true, ending = null, wanted = grid.dataset.live === "yes", endedAt = null;

  function show({ standing, changed, fault }) {
    if (fault) return;
    setStanding(standing);
    for (const [cell, name, text, level] of changed) {
      const item = items.get(cell);
      if (!item) { missing.add(cell); continue; }
      const picture = `/run/${run}/elite/${name}.png?side=${grid.dataset.side}`;
      if (setTile(item, picture, text, level) && !first) {
        item.classList.remove("changed");
        void item.offsetWidth;
        item.classList.add("changed");
      }
    }
    first = false;
    if (missing.size && all) {
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = "Load the page again";
      $("news").hidden = false;
      $("news").replaceChildren(`${thousands(missing.size)} more images are there now. `, link);
    }
    if (standing.finished && standing.evaluations !== endedAt) stop();
  }

  // A browser opens only six connections to one server. So of all tabs that show a run one has its stream and tells the
  // others, and hidden tabs have none.
  function open() {
    const closing = new AbortController(), channel = new BroadcastChannel(`evofool-${run}`);
    ending = closing;
    channel.onmessage = event => show(event.data);
    closing.signal.addEventListener("abort", () => channel.close());
    const stream = () => new Promise(resolve => {
      const events = new EventSource(`/run/${run}/events`);
      closing.signal.addEventListener("abort", () => { events.close(); resolve(); });
      events.onmessage = event => {
        const news = JSON.parse(event.data);
        channel.postMessage(news);
        show(news);
      };
    });
    navigator.locks.request(`evofool-${run}`, { signal: closing.signal }, stream).catch(() => {});
    fetch(`/run/${run}/now`, { signal: closing.signal }).then(answer => answer.ok ? answer.json() : null)
      .then(news => { if (news && !closing.signal.aborted) show(news); }).catch(() => {});
  }
  function close() { if (ending) ending.abort(); ending = null; }
  function stop() { wanted = false; close(); }
  // After a search was started again: its file says that it has ended until its next checkpoint.
  function resume(evaluations) {
    endedAt = evaluations;
    wanted = true;
    if (!ending) open();
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (wanted && !ending) open();
  });
  addEventListener("pagehide", close);
  if (wanted && !document.hidden) open();
  return { stop, resume };
}

// The replay: a slider over evaluations, and a second one for another number of them.

function replay(stream) {
  const form = $("replay"), slider = $("at"), last = () => Number(slider.max);
  const sliders = [slider, $("beside")].filter(Boolean).map(input => ({ input, asked: 0, shown: 0, timer: null }));
  async function asked(at) {
    const answer = await fetch(`/run/${grid.dataset.run}/at?${new URLSearchParams({ at, size: grid.dataset.side })}`);
    return answer.ok ? (await answer.json()).places : null;
  }
  // Of a static copy: the steps up to this number of evaluations, one after another.
  const kept = at => data.history.filter(([evaluations]) => evaluations <= at);
  const copied = at => Object.assign({}, ...kept(at).map(([, changed]) => changed));
  async function show(which) {
    const state = sliders[which], mine = ++state.asked;
    const places = files ? copied(Number(state.input.value)) : await asked(state.input.value);
    if (!places || mine < state.shown) return;
    state.shown = mine;
    for (const item of grid.children) {
      const [name, text, level] = places[item.dataset.cell] || ["", "none yet", 0];
      const picture = name && (files ? name : `/run/${grid.dataset.run}/${name}`);
      if (which === 0) setTile(item, picture, text, level);
      else {
        setImage(item, 1, picture, text);
        item.querySelector(".p i").textContent = text;
      }
    }
  }
  function moved(which) {
    const { input } = sliders[which];
    if (stream) stream.stop();
    // What is exported are the images of now.
    const past = Number(slider.value) < last();
    grid.classList.toggle("earlier", past);
    if ($("selection")) $("selection").hidden = past;
    const after = files ? (kept(Number(input.value)).pop() || [0])[0] : input.value;
    $(`${input.id}-text`).textContent = `${thousands(after)} evaluations`;
    if (!files) {
      const url = new URL(location.href);
      url.searchParams.set(input.id, input.value);
      history.replaceState(null, "", url);
    }
    clearTimeout(sliders[which].timer);
    sliders[which].timer = setTimeout(() => show(which), 40);
  }
  sliders.forEach(({ input }, which) => input.addEventListener("input", () => moved(which)));
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  if (files && data.note) {
    $("replay-note").hidden = false;
    $("replay-note").textContent = data.note;
  }
  let playing = null;
  const play = $("play");
  play.hidden = still.matches;
  const stop = () => { clearInterval(playing); playing = null; play.textContent = "Play"; };
  play.onclick = () => {
    if (playing) { stop(); return; }
    if (Number(slider.value) >= last()) slider.value = 0;
    play.textContent = "Stop";
    let part = Number(slider.value) / last();
    playing = setInterval(() => {
      // Most replacements are early: slow at the beginning.
      part = Math.min(1, part + Math.max(0.002, part * 0.05));
      const batch = Number(form.dataset.batch);
      slider.value = Math.round(part * last() / batch) * batch;
      moved(0);
      if (part >= 1) stop();
    }, 120);
  };
}

if (grid) {
  const stream = grid.dataset.live === "no" ? null : live();
  if ($("replay")) replay(stream);
  if ($("evolve") && stream) $("evolve").addEventListener("started", () => stream.resume(Number($("replay").dataset.last)));
}

// The line of descent

if ($("scrub")) {
  const steps = [...$("steps").children], slider = $("scrub-at"), image = $("scrub-image"), play = $("scrub-play");
  $("scrub").hidden = false;
  function show(k) {
    steps.forEach((each, n) => n === k ? each.setAttribute("aria-current", "true") : each.removeAttribute("aria-current"));
    image.src = steps[k].dataset.picture;
    $("scrub-text").textContent = `${k + 1} of ${steps.length}: ${steps[k].querySelector(".text").textContent}`;
    slider.value = k;
  }
  slider.addEventListener("input", () => show(Number(slider.value)));
  steps.forEach((each, k) => each.addEventListener("click", () => show(k)));
  let playing = null;
  play.hidden = still.matches;
  const stop = () => { clearInterval(playing); playing = null; play.textContent = "Play"; };
  play.onclick = () => {
    if (playing) { stop(); return; }
    play.textContent = "Stop";
    let k = Number(slider.value) >= steps.length - 1 ? -1 : Number(slider.value);
    playing = setInterval(() => { show(++k); if (k >= steps.length - 1) stop(); }, 150);
  };
  show(steps.length - 1);
}

document.documentElement.dataset.ready = "yes";  // for tests: keys have an effect from now on
