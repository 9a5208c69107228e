"use strict";
// The page of a run: it asks for the newest frame, draws it, asks again. What changes goes by POST as JSON.

const $ = (id) => document.getElementById(id);
const MAIN_VIEWS = [
  ["fused", "Fused", "Both, as one image"],
  ["side-by-side", "Side by side", "Infrared and visible as they came, and fused"],
  ["overlay", "Overlay", "Restored infrared in a palette over the restored visible: the hotter, the stronger"],
  ["infrared-inferno", "Inferno", "Restored infrared in a palette: dark is cold, yellow is hot"],
  ["registration", "Registration", "Infrared with the edges of the visible in white: where they meet, both fit"],
  ["infrared-uncertainty", "Uncertainty, infrared", "Within how many grey levels the restored infrared is right, at 9 of 10 pixels; frames take longer while it is shown"],
  ["visible-uncertainty", "Uncertainty, visible", "Within how many grey levels the restored visible is right, at 9 of 10 pixels; frames take longer while it is shown"],
];
const TILES = [
  ["infrared-input", "Infrared", "infrared"],
  ["visible-input", "Visible", "visible"],
  ["infrared", "Infrared, restored", "infrared"],
  ["visible", "Visible, restored", "visible"],
];
const MAIN_PX = [480, 640, 960, 1280];
const STALE_MS = 1500;
const state = { main: "fused", after: 0, framed: 0, touched: 0, socket: null, lost: false };
const areas = new AreaEditor();
const charts = [
  new Chart($("chart-latency"), "Latency", [
    { key: "total", label: "frame", color: "#56d364" },
    { key: "network", label: "network", color: "#a371f7" },
  ]),
  new Chart($("chart-age"), "Age when fused", [
    { key: "infrared", label: "infrared", color: "#ff9d45" },
    { key: "visible", label: "visible", color: "#58a6ff" },
  ], { unknown: "recorded frames have no age" }),
  new Chart($("chart-skew"), "Skew", [{ key: "skew", label: "infrared after visible", color: "#e3b341" }], {
    signed: true,
    unknown: "these clocks do not compare",
  }),
];

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || answer.statusText);
  return told;
}

// --- images ---------------------------------------------------------------------------------------------------------

function buildViews() {
  for (const [view, label, title] of MAIN_VIEWS) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label, title });
    button.dataset.view = view;
    button.addEventListener("click", () => choose(view));
    $("tabs").append(button);
  }
  for (const [view, label, modality] of TILES) {
    const figure = document.createElement("figure");
    figure.className = `card ${modality}`;
    figure.tabIndex = 0;
    figure.title = "Show it large";
    const caption = Object.assign(document.createElement("figcaption"), { textContent: label });
    figure.append(document.createElement("canvas"), caption);
    figure.dataset.view = view;
    figure.addEventListener("click", () => choose(view));
    figure.addEventListener("keydown", (event) => event.key === "Enter" && choose(view));
    $("tiles").append(figure);
  }
  $("main").querySelector("canvas").addEventListener("mousemove", readPoint);
  $("main").querySelector("canvas").addEventListener("mouseleave", () => (state.point = ""));
  $("agc-lock").addEventListener("change", async () => {
    state.touched = performance.now();
    await post("/thermal", { lock: $("agc-lock").checked });
  });
  $("main").querySelector("canvas").addEventListener("dblclick", () => {
    if (areas.drawing) return;
    if (document.fullscreenElement) document.exitFullscreen();
    else $("main").requestFullscreen();
  });
  choose("fused");
}

function choose(view) {
  state.main = view;
  for (const button of $("tabs").children) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  areas.view();
}

function wanted() {
  if (document.hidden) return [];
  const canvas = $("main").querySelector("canvas");
  const needed = canvas.clientWidth * (window.devicePixelRatio || 1) * (state.main === "side-by-side" ? 1 : 0.8);
  const width = MAIN_PX.find((each) => each >= needed) || 1280;
  return [`${state.main}@${width}`, ...TILES.map(([view]) => `${view}@320`)];
}

async function draw(view, jpeg) {
  const name = view.split("@")[0];
  const canvases = [...document.querySelectorAll(`.tiles figure[data-view="${name}"] canvas`)];
  if (name === state.main && !view.endsWith("@320")) canvases.splice(0, canvases.length, $("main").querySelector("canvas"));
  const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
  for (const canvas of canvases) {
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      canvas.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
      areas.outline();
    }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }
  bitmap.close();
}

// --- the line to the robot ------------------------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  let askedAt = 0;
  const ask = () => {
    if (socket.readyState !== WebSocket.OPEN) return;
    askedAt = performance.now();
    socket.send(JSON.stringify({ views: wanted(), after: state.after }));
  };
  socket.onopen = () => {
    state.after = 0; // another run may answer
    state.lost = false;
    ask();
  };
  socket.onmessage = async (event) => {
    try {
      await take(event.data);
    } finally {
      const pause = 1000 / Number($("most-hz").value) - (performance.now() - askedAt);
      setTimeout(ask, Math.max(0, pause));
    }
  };
  socket.onclose = () => {
    state.lost = true;
    setTimeout(reconnect, 1000);
  };
  state.socket = socket;
}

async function reconnect() {
  try {
    const answer = await fetch("/about.json"); // a WebSocket does not say why it is refused
    if (answer.status === 401) location.replace("/login");
    else connect();
  } catch {
    setTimeout(reconnect, 1000);
  }
}

async function take(data) {
  const length = new DataView(data).getUint32(0, true);
  const told = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  for (const chart of charts) chart.add(told.points);
  if (told.status) showStatus(told.status);
  state.missing = told.missing;
  if (!told.frame) return;
  if (told.frame.number > state.after) state.framed = performance.now();
  state.after = told.frame.number;
  showFrame(told.frame);
  let place = 4 + length;
  const drawing = told.views.map((view, index) => {
    const jpeg = new Uint8Array(data, place, told.bytes[index]);
    place += told.bytes[index];
    return draw(view, jpeg);
  });
  await Promise.all(drawing);
  if (told.missing && state.main.endsWith("-uncertainty")) say_instead(told.missing);
}

function say_instead(words) {
  const canvas = $("main").querySelector("canvas"); // no older image may pass for this frame's
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#0d1117";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#8b949e";
  pen.font = `${Math.max(10, Math.round(canvas.width / 40))}px sans-serif`;
  pen.fillText(words, canvas.width / 40, canvas.height / 2, canvas.width * 0.95);
}

// --- words and numbers ----------------------------------------------------------------------------------------------

const say = (value, digits = 1, unit = "") => (value === null || value === undefined ? "–" : value.toFixed(digits) + unit);

function chip(id, kind, text) {
  $(id).className = `chip ${kind}`;
  $(id).querySelector("b").textContent = text;
}

function showFrame(frame) {
  $("total").textContent = say(frame.total_ms);
  $("skew").textContent = say(frame.skew_ms, 1, " ms");
  const ran = frame.controls.steps;
  const steps = ran === null ? "nothing fused" : ran === 1 ? "1 step" : `${ran} steps`;
  $("frame").textContent = `${frame.name || frame.number} · ${frame.size[0]}×${frame.size[1]} · ${steps}${state.point ? " · " + state.point : ""}${state.missing ? " · " + state.missing : ""}`;
  state.degraded = frame.degraded;
  for (const each of controls) if (each.name === "steps") each.box.placeholder = ran ?? "";
  for (const [index, modality] of ["infrared", "visible"].entries()) {
    const source = frame.states ? frame.states[index] : "recorded";
    const kind = source === "open" ? "good" : source === "recorded" ? "" : source === "stale" || source === "opening" ? "warn" : "bad";
    const age = frame[`${modality}_age_ms`];
    chip(`${modality}-state`, kind, age === null ? source : `${source} ${say(age, 0, " ms")}`);
  }
}

function showStatus(status) {
  $("rate").textContent = say(status.rate_now_hz);
  const told = status.health.status;
  if (!state.lost) chip("health", status.healthy ? (told === "ok" ? "good" : "warn") : "bad", told);
  $("refusal").textContent = status.refusal;
  areas.take(status.areas);
  showRecording(status.recording);
  showThermal(status.thermal);
  showEvidence(status.evidence);
  if (performance.now() - state.touched > 1500) for (const each of controls) each.take(status.controls[each.name]);
  showCameras(status.live);
  showStages(status.latency_ms || {});
  showFacts(status);
}

function showStages(stages) {
  const rows = Object.entries(stages).map(([name, row]) => {
    const line = rowOf(name, Object.values(row).map((value) => say(value)));
    line.className = name === "total" ? "total" : "";
    return line;
  });
  $("stages").tBodies[0].replaceChildren(...rows);
}

function rowOf(name, texts) {
  const line = document.createElement("tr");
  line.append(...[name, ...texts].map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return line;
}

function showCameras(live) {
  $("cameras").hidden = !live;
  if (!live) return;
  const sources = [live.sources.infrared, live.sources.visible];
  const ledgers = [live.ledger.infrared, live.ledger.visible];
  const causes = [...new Set(ledgers.flatMap((each) => Object.keys(each.dropped)))];
  const odd = [...new Set(sources.flatMap((each) => Object.keys(each.oddities)))];
  const rows = [
    ["rate, Hz", sources.map((each) => say(each.rate_hz))],
    ["received", ledgers.map((each) => each.received)],
    ["fused", ledgers.map((each) => each.fused)],
    ["fused again, held", ledgers.map((each) => each.held)],
    ["unpaired", ledgers.map((each) => each.unpaired)],
    ...causes.map((cause) => [`dropped: ${cause}`, ledgers.map((each) => each.dropped[cause] || 0)]),
    ...odd.map((what) => [what, sources.map((each) => each.oddities[what] || 0)]),
    ["opened again", sources.map((each) => each.reopened)],
  ];
  const { policy, slop_ms, hold_ms } = live.pairing;
  $("pairing").textContent = `pairing ${policy}, slop ${say(slop_ms, 0)} ms, hold ${say(hold_ms, 0)} ms`;
  $("cameras").querySelector("tbody").replaceChildren(...rows.map(([name, values]) => rowOf(name, values)));
  $("failures").textContent = sources.map((each) => each.failure).filter(Boolean).join("; ");
}

function showEvidence(evidence) {
  $("evidence").hidden = !evidence;
  if (!evidence) return;
  const likely = (kinds) => Object.entries(kinds || {}).filter(([, p]) => p >= 0.2).sort((a, b) => b[1] - a[1]);
  const words = (kinds) => kinds ? likely(kinds).map(([kind, p]) => `${kind.replaceAll("_", " ")} ${p.toFixed(1)}`).join(", ") || "none" : "–";
  const rows = ["infrared", "visible"].map((name) => rowOf(name, [words(evidence[name]), words(evidence.network?.[name])]));
  document.querySelector("#evidence tbody").replaceChildren(...rows);
}

function showFacts(status) {
  const facts = [["fused", `${status.read ?? 0} pairs`]];
  if (!status.live) facts.push(["overtaken", `${status.dropped ?? 0} pairs`]);
  if (status.left_out && !status.live) facts.push(["without partner", `${status.left_out[0]} infrared, ${status.left_out[1]} visible`]);
  for (const output of (status.outputs || []).filter((each) => each.to !== "none:")) {
    facts.push([output.to, `${output.written} written` + (output.dropped ? `, ${output.dropped} dropped` : "")]);
  }
  if (status.drift_px !== null && status.drift_px !== undefined) facts.push(["drift", `${say(status.drift_px)} pixels`]);
  if (status.failure) facts.push(["failure", status.failure]);
  for (const note of Object.keys(status.input_notes || {})) facts.push(["note", note]);
  $("facts").replaceChildren(
    ...facts.flatMap(([name, text]) => [
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    ]),
  );
}

function showRecording(recording) {
  state.recording = recording.is_on;
  $("record").className = recording.is_on ? "on" : "";
  $("record").querySelector("span").textContent = recording.is_on ? "Stop" : "Record";
  $("recording").className = recording.failure ? "bad" : "muted clip";
  const dropped = recording.dropped ? `, ${recording.dropped} dropped` : "";
  const told = recording.is_on
    ? `${say(recording.seconds, 0, " s")}, ${recording.written} frames${dropped} into ${recording.to}`
    : recording.to ? `${recording.written} frames${dropped} in ${recording.to}` : "";
  $("recording").textContent = recording.failure || told;
  $("recording").title = told;
}

function showThermal(thermal) {
  $("thermal").hidden = !thermal;
  if (!thermal) return;
  if (performance.now() - state.touched > 1500) $("agc-lock").checked = thermal.is_locked;
  const events = Object.entries(thermal.events).map(([name, count]) => `${count} frames: ${name}`);
  $("thermal-facts").textContent = [`${thermal.bad_pixels} bad pixels`, ...events].join(" · ");
}

async function readPoint(event) {
  const [row, column] = placeIn(event.target, event);
  if ($("thermal").hidden || state.reading || state.main === "side-by-side" || !(row >= 0 && row < 1 && column >= 0 && column < 1)) return;
  state.reading = true; // one question at a time
  try {
    const told = await (await fetch(`/reading.json?row=${row}&column=${column}`)).json();
    const kelvin = told.kelvin === null ? "" : `, ${told.kelvin.toFixed(1)} K (${(told.kelvin - 273.15).toFixed(1)} °C)`;
    state.point = told.counts === null ? "" : `${told.counts} counts${kelvin}`;
  } catch {
    state.point = "";
  } finally {
    setTimeout(() => (state.reading = false), 100);
  }
}

function showBanner() {
  const silent = state.framed ? performance.now() - state.framed : 0;
  const stale = state.lost || silent > STALE_MS;
  document.body.classList.toggle("stale", stale);
  const words = state.lost
    ? "no connection to the robot"
    : stale ? `no new frame for ${(silent / 1000).toFixed(0)} s`
    : state.degraded === "both lost" ? "" : state.degraded || ""; // of both lost the image itself says so
  if (state.lost) chip("health", "bad", "no connection");
  $("banner").hidden = !words;
  $("banner").className = stale ? "banner" : "banner warn";
  $("banner").textContent = words;
}

// --- controls -------------------------------------------------------------------------------------------------------

const controls = [];
const pending = new Map();
let sending = false;

async function sendPending() {
  if (sending) return; // the newest values go when the last ones have arrived
  sending = true;
  while (pending.size) {
    const sent = [...pending.values()];
    pending.clear();
    try {
      await post("/controls", Object.fromEntries(sent.map((each) => [each.name, each.read()])));
      for (const each of sent) each.error.textContent = "";
    } catch (error) {
      for (const each of sent) each.error.textContent = error.message;
    }
  }
  sending = false;
}

class ControlRow {
  constructor(entry) {
    Object.assign(this, entry);
    this.optional = entry.default === null;
    this.log = entry.low > 0 && entry.high / entry.low >= 1000; // such as a deadline of 1 ms to a minute
    this.places = entry.is_whole ? 0 : this.log ? 1 : 2;
    const row = document.createElement("div");
    row.className = "control";
    const id = `control-${entry.name}`;
    const unit = entry.name.match(/_(ms|s|hz|px)$/);
    const label = entry.name.replace(/_(ms|s|hz|px)$/, "").replaceAll("_", " ");
    this.box = Object.assign(document.createElement("input"), { type: "number", min: entry.low, max: entry.high, id, placeholder: "none" });
    this.box.step = entry.is_whole ? 1 : "any";
    this.slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1000, step: 1 });
    if (entry.is_whole) Object.assign(this.slider, { min: entry.low, max: entry.high });
    this.slider.value = entry.is_whole ? entry.low : 300; // where it stands while nothing is set
    this.slider.setAttribute("aria-label", label);
    this.set = Object.assign(document.createElement("input"), { type: "checkbox", className: "switch", title: "Set it, or leave it" });
    this.set.setAttribute("aria-label", `set ${label}`);
    this.error = Object.assign(document.createElement("div"), { className: "error" });
    const name = Object.assign(document.createElement("label"), { htmlFor: id, textContent: label[0].toUpperCase() + label.slice(1) + (unit ? `, ${unit[1]}` : "") });
    const value = Object.assign(document.createElement("span"), { className: "value" });
    value.append(this.box);
    if (this.optional) value.append(this.set);
    const ends = Object.assign(document.createElement("span"), { className: "ends" });
    ends.append(...[entry.low, entry.high].map((end) => Object.assign(document.createElement("span"), { textContent: end })));
    const help = Object.assign(document.createElement("small"), { textContent: entry.meaning });
    row.append(name, value, help, this.slider, ends, this.error);
    this.row = row;
    this.slider.addEventListener("input", () => this.turn(this.ofSlider(Number(this.slider.value))));
    this.box.addEventListener("change", () => this.turn(this.box.value === "" ? null : Number(this.box.value)));
    this.set.addEventListener("change", () => this.turn(this.set.checked ? this.ofSlider(Number(this.slider.value)) : null));
    this.take(entry.value);
  }

  ofSlider(place) {
    if (this.is_whole) return place;
    const share = place / 1000;
    const value = this.log ? this.low * (this.high / this.low) ** share : this.low + share * (this.high - this.low);
    return Number(value.toFixed(this.places));
  }

  toSlider(value) {
    if (this.is_whole) return value;
    return 1000 * (this.log ? Math.log(value / this.low) / Math.log(this.high / this.low) : (value - this.low) / (this.high - this.low));
  }

  read() {
    return this.box.value === "" ? null : Number(this.box.value);
  }

  take(value) {
    this.box.value = value === null || value === undefined ? "" : Number(Number(value).toFixed(3));
    this.set.checked = value !== null && value !== undefined;
    this.row.classList.toggle("off", !this.set.checked);
    if (this.set.checked) this.slider.value = this.toSlider(value);
  }

  turn(value) {
    if (value !== null && !(value >= this.low && value <= this.high)) {
      this.error.textContent = `${value} does not lie between ${this.low} and ${this.high}`;
      return;
    }
    this.error.textContent = "";
    state.touched = performance.now();
    this.take(value === null && !this.optional ? this.default : value);
    pending.set(this.name, this);
    sendPending();
  }
}

async function buildControls() {
  const { about, controls: entries, views } = await (await fetch("/about.json")).json();
  for (const button of $("tabs").children) button.hidden = !views.includes(button.dataset.view);
  for (const entry of entries) {
    const row = new ControlRow(entry);
    controls.push(row);
    $("controls").append(row.row);
  }
  $("defaults").addEventListener("click", () => controls.forEach((each) => each.turn(each.default)));
  const short = (text) => text.replace(/^.*\/(?=[^/]+\/[^/]+$)/, "…/");
  $("run").textContent = Object.values(about).map(short).join(" · ");
  $("run").title = Object.entries(about).map(([name, text]) => `${name}: ${text}`).join("\n");
  document.title = about.host ? `${about.host} · cled-edge` : "cled-edge";
}

$("record").addEventListener("click", async () => {
  try {
    showRecording(await post("/record", state.recording ? { on: false } : { on: true, view: state.main, kind: $("record-kind").value }));
  } catch (error) {
    $("recording").className = "bad";
    $("recording").textContent = error.message;
  }
});

buildViews();
buildControls().then(connect);
setInterval(showBanner, 250);
setInterval(() => document.hidden || charts.forEach((chart) => chart.draw()), 200);
