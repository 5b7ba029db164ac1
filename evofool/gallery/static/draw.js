// The page on which one draws: the paper, its tools, and the target's answer after each stroke.

const $ = id => document.getElementById(id);
const page = $("draw"), paper = $("paper"), channels = Number(page.dataset.channels);
const context = paper.getContext("2d", { willReadFrequently: true });
const W = paper.width, H = paper.height;
const blank = channels === 1 ? "#000000" : "#ffffff";  // digits are white on black, photographs have light behind them
page.hidden = false;

// The paper. Strokes are drawn at the target's own size, so that what is seen is what is scored.

const earlier = [];
function remember() {
  earlier.push(context.getImageData(0, 0, W, H));
  if (earlier.length > 50) earlier.shift();
}

function clear() {
  context.fillStyle = blank;
  context.fillRect(0, 0, W, H);
}

function ink() {
  if ($("rub").getAttribute("aria-pressed") === "true") return blank;
  const value = $("ink").value;
  return channels === 1 ? `rgb(${value} ${value} ${value})` : value;
}

function place(event) {
  const box = paper.getBoundingClientRect();
  return [(event.clientX - box.left) * W / box.width, (event.clientY - box.top) * H / box.height];
}

let last = null;
paper.addEventListener("pointerdown", event => {
  if (event.button !== 0 || last) return;
  event.preventDefault();
  paper.setPointerCapture(event.pointerId);
  remember();
  last = place(event);
  line(last);
});
paper.addEventListener("pointermove", event => {
  if (!last || !paper.hasPointerCapture(event.pointerId)) return;
  for (const each of event.getCoalescedEvents?.() || [event]) line(place(each));
});
for (const end of ["pointerup", "pointercancel"]) paper.addEventListener(end, () => { last = null; });

function line(to) {
  context.strokeStyle = ink();
  context.lineWidth = Math.max(1, Number($("brush").value) * Math.min(W, H) / 100);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(to[0], to[1] + (to === last ? 0.001 : 0));
  context.stroke();
  last = to;
  changed();
}

const act = {
  undo() { if (earlier.length) context.putImageData(earlier.pop(), 0, 0); },
  clear() { remember(); clear(); },
  invert() {
    remember();
    const image = context.getImageData(0, 0, W, H);
    for (let k = 0; k < image.data.length; k += 4) for (let c = 0; c < 3; c++) image.data[k + c] = 255 - image.data[k + c];
    context.putImageData(image, 0, 0);
  },
};
for (const [name, function_] of Object.entries(act)) $(name).addEventListener("click", () => {
  function_();
  say("fitted", "");
  changed();
});
$("rub").addEventListener("click", () => {
  $("rub").setAttribute("aria-pressed", $("rub").getAttribute("aria-pressed") !== "true");
});
$("ink").addEventListener("input", () => $("rub").setAttribute("aria-pressed", false));

function say(id, text) { $(id).textContent = text; }

function problem(text) {
  $("problem").hidden = !text;
  say("problem", text);
}

// Questions: one at a time; what was drawn meanwhile is asked next. A server that counts its requests is asked once the
// strokes have paused, other targets also during a stroke.

const pause = Number(page.dataset.pause);
let asking = false, waiting = false, timer = null;

function changed() {
  if (pause) clearTimeout(timer);
  else if (timer) return;
  timer = setTimeout(() => { timer = null; ask(); }, pause || 50);
}

async function ask() {
  if (asking) { waiting = true; return; }
  asking = true;
  waiting = false;
  try {
    const png = await new Promise(resolve => paper.toBlob(resolve, "image/png"));
    await send(png);
  } finally {
    asking = false;
  }
  if (waiting) changed();
}

// The answer to a PNG; null if there is none, which is said.
async function send(png, pixels = false) {
  const address = new URL(page.dataset.ask, location.href);
  if (pixels) address.searchParams.set("pixels", "yes");
  const headers = { "content-type": "image/png", "x-form-token": document.body.dataset.formToken };
  let answer;
  try {
    answer = await fetch(address, { method: "POST", headers, body: png });
  } catch {
    problem("The gallery does not answer: it may have ended.");
    return null;
  }
  if (answer.status === 429) {
    if (pixels) return new Promise(resolve => setTimeout(() => resolve(send(png, true)), 300));
    waiting = true;
    return null;
  }
  if (!answer.ok) {
    problem(await answer.text());
    return null;
  }
  problem("");
  const found = await answer.json();
  show(found);
  return found;
}

let toldAt = 0;
function show({ classes, doubts, warnings, asked }) {
  // A screen reader is told at most once in five seconds.
  const now = performance.now(), told = now - toldAt > 5000;
  $("answers").setAttribute("aria-live", told ? "polite" : "off");
  if (told) toldAt = now;
  $("answers").replaceChildren(...classes.map(([number, label, confidence, odds, share]) => {
    const item = document.createElement("li"), name = document.createElement("span"), bar = document.createElement("meter");
    const value = document.createElement("b"), more = document.createElement("i");
    name.textContent = label;
    name.title = `class ${number}`;
    value.textContent = confidence;
    more.textContent = `log-odds ${odds}`;
    bar.value = share;
    bar.setAttribute("aria-label", `confidence ${confidence} for ${label}`);
    item.append(name, value, more, bar);
    return item;
  }));
  $("cautions").replaceChildren(...[...doubts, ...warnings].map(text => {
    const item = document.createElement("p");
    item.className = "caution";
    item.textContent = `${text}.`;
    return item;
  }));
  say("asked", `${asked} asked so far.`);
}

// Uploads. The server fits the image to the target, and the result is put on the paper.

async function upload(file) {
  let png = file, made = "";
  const most = Number(page.dataset.mostBytes), mostPixels = Number(page.dataset.mostPixels);
  if (file.type !== "image/png" || file.size > most || await pixelsOf(file) > mostPixels) {
    [png, made] = await smaller(file, most, mostPixels);
  }
  if (!png) { problem("The browser cannot read this file as an image."); return; }
  const found = await send(png, true);
  if (!found) return;
  remember();
  const bytes = Uint8Array.from(atob(found.pixels), c => c.charCodeAt(0)), image = context.createImageData(W, H);
  for (let k = 0; k < W * H; k++) {
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = bytes[channels === 1 ? k : 3 * k + c];
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  say("fitted", made + found.fitted);
}

// How many pixels a PNG has, by its header; 0 of what has none, which the server refuses in words.
async function pixelsOf(file) {
  const head = new DataView(await file.slice(0, 24).arrayBuffer());
  return head.byteLength < 24 ? 0 : head.getUint32(16) * head.getUint32(20);
}

// A PNG of at most so many bytes and pixels, scaled by the browser, and what was done, in words.
async function smaller(file, most, mostPixels) {
  let bitmap;
  try { bitmap = await createImageBitmap(file); } catch { return [null, ""]; }
  const { width, height } = bitmap;
  let side = Math.min(Math.max(width, height), Math.max(512, 2 * Math.max(W, H)));
  for (;; side = Math.floor(side * 0.8)) {
    const scale = side / Math.max(width, height), sheet = document.createElement("canvas");
    sheet.width = Math.max(1, Math.round(width * scale));
    sheet.height = Math.max(1, Math.round(height * scale));
    const pen = sheet.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, sheet.width, sheet.height);
    const png = await new Promise(resolve => sheet.toBlob(resolve, "image/png"));
    if (png.size <= most && sheet.width * sheet.height <= mostPixels) {
      const sizes = scale < 1 ? `scaled it from ${width} x ${height} to ${sheet.width} x ${sheet.height} pixels` : "made it a PNG";
      return [png, `The browser has ${sizes}: only a PNG of at most ${most >> 10} kB and ${mostPixels / 1e6} million pixels is sent. `];
    }
  }
}

$("upload").addEventListener("change", () => { if ($("upload").files.length) upload($("upload").files[0]); });
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  if (event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
});

// The beginning: an elite, or blank paper.

function start() {
  const image = new Image();
  image.onload = () => { context.drawImage(image, 0, 0, W, H); changed(); };
  image.src = page.dataset.start;
}
clear();
if (page.dataset.start) {
  start();
  $("again").addEventListener("click", () => { remember(); start(); });
} else changed();
