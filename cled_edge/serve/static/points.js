"use strict";
// Marks the same points in both images. Places are in pixels of each camera, from 0; a pixel's middle is whole.

const $ = (id) => document.getElementById(id);
const MODALITIES = ["infrared", "visible"];
const MARK_PX = 7; // on the screen
const state = { rows: [], open: {}, pictures: {}, worst: null, saved: null };

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || answer.statusText);
  return told;
}

async function show(number) {
  for (const modality of MODALITIES) {
    const answer = await fetch(`/picture/${modality}/${number}.png`);
    state.pictures[modality] = await createImageBitmap(await answer.blob());
  }
  draw();
}

function draw() {
  for (const [index, modality] of MODALITIES.entries()) {
    const picture = state.pictures[modality];
    if (!picture) continue;
    const canvas = $(modality).querySelector("canvas");
    canvas.style.aspectRatio = `${picture.width} / ${picture.height}`;
    // Drawn at the screen's own size: marks stay fine on a picture of few pixels.
    const scale = Math.max(1, (canvas.clientWidth * (window.devicePixelRatio || 1)) / picture.width);
    canvas.width = Math.round(picture.width * scale);
    canvas.height = Math.round(picture.height * scale);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = scale < 2;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const marks = state.rows.map((row, at) => [row.slice(2 * index, 2 * index + 2), String(at + 1)]);
    if (state.open[modality]) marks.push([state.open[modality], "+"]);
    for (const [place, name] of marks) mark(context, place, name, scale);
  }
  showRows();
}

function mark(context, [x, y], name, scale) {
  const [column, row] = [(x + 0.5) * scale, (y + 0.5) * scale];
  const reach = MARK_PX * (window.devicePixelRatio || 1);
  for (const [color, width] of [["#000", 4], [name === "+" ? "#e3b341" : "#56d364", 2]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    context.arc(column, row, reach, 0, 2 * Math.PI);
    context.moveTo(column - reach / 2, row);
    context.lineTo(column + reach / 2, row);
    context.moveTo(column, row - reach / 2);
    context.lineTo(column, row + reach / 2);
    context.stroke();
  }
  context.font = `600 ${2 * reach}px system-ui, sans-serif`;
  context.lineWidth = 4;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  context.strokeText(name, column + 1.3 * reach, row - 0.6 * reach);
  context.fillText(name, column + 1.3 * reach, row - 0.6 * reach);
}

function clicked(event, modality) {
  const picture = state.pictures[modality];
  const box = event.target.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * picture.width - 0.5;
  const y = ((event.clientY - box.top) / box.height) * picture.height - 0.5;
  const within = (value, side) => Number(Math.min(Math.max(value, 0), side - 1).toFixed(2));
  state.open[modality] = [within(x, picture.width), within(y, picture.height)];
  if (state.open.infrared && state.open.visible) {
    state.rows.push([...state.open.infrared, ...state.open.visible]);
    state.open = {};
    state.worst = null;
  }
  draw();
}

function showRows() {
  const rows = state.rows.map((row, at) => {
    const line = document.createElement("tr");
    line.className = at + 1 === state.worst ? "worst" : "";
    line.title = line.className ? "It differs most from where the others have it" : "";
    const texts = [at + 1, `${row[0].toFixed(1)}, ${row[1].toFixed(1)}`, `${row[2].toFixed(1)}, ${row[3].toFixed(1)}`];
    line.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    const away = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: "✕", title: "Delete" });
    away.setAttribute("aria-label", `delete point ${at + 1}`);
    away.addEventListener("click", () => {
      state.rows.splice(at, 1);
      state.worst = null;
      draw();
    });
    const cell = document.createElement("td");
    cell.append(away);
    line.append(cell);
    return line;
  });
  $("points").tBodies[0].replaceChildren(...rows);
  const lacking = state.least - state.rows.length;
  const missing = MODALITIES.find((each) => !state.open[each] && Object.keys(state.open).length);
  $("next").textContent = missing ? `now the same point in the ${missing} image`
    : lacking > 0 ? `${lacking} more at least` : "more points, far apart, make it surer";
  $("calibrate").disabled = lacking > 0;
}

async function calibrate() {
  $("calibrate").disabled = true;
  $("said").textContent = "";
  try {
    const told = await post("/calibrate", { points: state.rows, pair: Number($("pair").value) });
    state.worst = told.worst_point;
    const facts = [
      ["error", `${told.error_px.toFixed(2)} visible pixels`], ["", `${told.error_infrared_px.toFixed(2)} infrared pixels`],
      ["worst point", `${told.worst_point}, ${told.worst_px.toFixed(1)} px off the others`],
      ["map", told.model], ["confidence", told.confidence.toFixed(2)],
    ];
    $("found").hidden = false;
    $("found").replaceChildren(...facts.flatMap(([name, text]) => [
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    ]));
    $("said").className = told.saved ? "small good" : "small bad";
    $("said").textContent = told.saved ? `saved to ${told.saved}` : `not saved: it is not sure; look at point ${told.worst_point}, and mark more`;
    state.saved = told.saved || state.saved;
    $("done").disabled = !state.saved;
    $("overlay").hidden = false;
    $("overlay").querySelector("img").src = `/overlay.png?at=${Date.now()}`;
  } catch (error) {
    $("said").className = "small bad";
    $("said").textContent = error.message;
  }
  draw();
}

async function begin() {
  const rig = await (await fetch("/rig.json")).json();
  state.least = rig.least;
  $("least").textContent = rig.least;
  $("to").textContent = rig.to;
  for (const modality of MODALITIES) {
    const [height, width] = rig[`${modality}_size`];
    $(modality).querySelector("span").textContent = `${height}×${width}`;
    $(modality).querySelector("canvas").addEventListener("click", (event) => clicked(event, modality));
  }
  for (const [number, name] of rig.pairs.entries()) $("pair").append(new Option(name, number));
  $("pair").addEventListener("change", () => show($("pair").value));
  $("calibrate").addEventListener("click", calibrate);
  $("clear").addEventListener("click", () => {
    Object.assign(state, { rows: [], open: {}, worst: null });
    draw();
  });
  $("done").addEventListener("click", async () => {
    try {
      await post("/done", {});
    } catch (error) {
      $("said").textContent = error.message;
      return;
    }
    for (const button of document.querySelectorAll("button")) button.disabled = true;
    $("next").textContent = "done; this page may be closed";
  });
  window.addEventListener("resize", draw);
  await show(0);
}

begin();
