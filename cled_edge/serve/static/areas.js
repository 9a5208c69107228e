"use strict";
// Areas on the page: a box that is dragged over the large image becomes one; each has a row that says what holds there.

// What a row may ask for: the keys of an area, of which `of` is the slider's, 0 to 1. The last match of a key wins.
const AREA_KINDS = [
  { label: "Remove a share, both", of: "share", modality: "both" },
  { label: "Remove a share, infrared", of: "share", modality: "infrared" },
  { label: "Remove a share, visible", of: "share", modality: "visible" },
  { label: "Lean on the infrared", of: "attention", sign: 1 },
  { label: "Lean on the visible", of: "attention", sign: -1 },
  { label: "Infrared shows nothing", modality: "infrared" },
  { label: "Visible shows nothing", modality: "visible" },
];
const LEAST_DRAG = 0.01; // of the image: less is a click

class AreaEditor {
  constructor() {
    this.areas = []; // as the robot has them
    this.rowsOf = ""; // the text of the areas that the rows show
    this.canvas = $("main").querySelector("canvas");
    this.drawing = false;
    this.from = null;
    this.touched = -Infinity;
    $("areas-draw").addEventListener("click", () => this.arm(!this.drawing));
    $("areas-clear").addEventListener("click", () => this.send([]));
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.from && this.sketch(placeIn(this.canvas, event)));
    this.canvas.addEventListener("pointerup", (event) => this.end(placeIn(this.canvas, event)));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.arm(false));
    new ResizeObserver(() => this.outline()).observe(this.canvas);
  }

  arm(drawing) {
    this.drawing = drawing;
    this.from = null;
    $("areas-draw").setAttribute("aria-pressed", String(drawing));
    this.canvas.classList.toggle("drawing", drawing);
    this.outline();
  }

  begin(event) {
    if (!this.drawing || state.main === "side-by-side") return;
    this.from = placeIn(this.canvas, event);
    this.canvas.setPointerCapture(event.pointerId);
  }

  end(to) {
    const box = this.from && boxOf(this.from, to);
    if (!box) return;
    this.arm(false);
    if (box[2] - box[0] < LEAST_DRAG || box[3] - box[1] < LEAST_DRAG) return;
    const polygon = [[box[0], box[1]], [box[0], box[3]], [box[2], box[3]], [box[2], box[1]]];
    this.send([...this.areas, { polygon, share: 0 }]);
  }

  async send(areas) {
    this.touched = performance.now();
    try {
      const told = await post("/areas", { areas });
      $("areas-said").textContent = "";
      this.touched = -Infinity;
      this.take(told.areas);
    } catch (error) {
      $("areas-said").textContent = error.message;
      $("areas").hidden = false;
    }
  }

  // What the robot says: it is the one that knows, other pages and detectors draw too.
  take(areas) {
    if (performance.now() - this.touched < 1500) return;
    this.areas = areas.map((area) => Object.fromEntries(Object.entries(area).filter(([, value]) => value !== null)));
    const text = JSON.stringify(this.areas);
    if (this.areas.length || !$("areas-said").textContent) $("areas").hidden = !this.areas.length;
    if (text === this.rowsOf) return;
    this.rowsOf = text;
    $("areas-rows").replaceChildren(...this.areas.map((area, index) => this.row(area, index)));
    this.outline();
  }

  row(area, index) {
    const row = document.createElement("div");
    row.className = "control";
    const chosen = AREA_KINDS[kindOf(area)];
    const kind = Object.assign(document.createElement("select"), { ariaLabel: `area ${index + 1}` });
    for (const { label } of AREA_KINDS) kind.append(new Option(label));
    kind.selectedIndex = kindOf(area);
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1, step: 0.05, ariaLabel: `how much, area ${index + 1}` });
    slider.value = chosen.of ? Math.abs(area[chosen.of]) : 0;
    slider.hidden = !chosen.of;
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove", title: "Remove this area" });
    const others = (changed) => this.areas.map((each, place) => (place === index ? changed : each));
    kind.addEventListener("change", () => this.send(others(areaOf(area.polygon, AREA_KINDS[kind.selectedIndex]))));
    slider.addEventListener("change", () => this.send(others(areaOf(area.polygon, chosen, Number(slider.value)))));
    remove.addEventListener("click", () => this.send(this.areas.filter((_, place) => place !== index)));
    row.append(kind, remove, slider);
    return row;
  }

  sketch(to) {
    this.outline(boxOf(this.from, to));
  }

  outline(box) {
    const svg = $("boxes");
    const { left, top, width, height } = imageIn(this.canvas);
    Object.assign(svg.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    svg.hidden = state.main === "side-by-side";
    const polygons = this.areas.map((area) => (area.polygon?.length ? area.polygon : [[0, 0], [0, 1], [1, 1], [1, 0]]));
    if (box) polygons.push([[box[0], box[1]], [box[0], box[3]], [box[2], box[3]], [box[2], box[1]]]);
    svg.replaceChildren(
      ...polygons.map((corners) => {
        const drawn = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
        drawn.setAttribute("points", corners.map(([row, column]) => `${column},${row}`).join(" "));
        return drawn;
      }),
    );
  }
}

function kindOf(area) {
  if (area.valid === false) return area.modality === "infrared" ? 5 : 6;
  if (area.attention !== undefined) return area.attention < 0 ? 4 : 3;
  return ["both", "infrared", "visible"].indexOf(area.modality || "both");
}

function areaOf(polygon, kind, amount = kind.of === "attention" ? 1 : 0) {
  const area = { polygon, modality: kind.modality || "both" };
  if (!kind.of) return { ...area, valid: false };
  return { ...area, [kind.of]: amount * (kind.sign || 1) };
}

// Where the image lies in its canvas, in CSS pixels: `object-fit: contain` leaves bars beside it.
function imageIn(canvas) {
  const scale = Math.min(canvas.clientWidth / canvas.width, canvas.clientHeight / canvas.height);
  const [width, height] = [canvas.width * scale, canvas.height * scale];
  return { left: (canvas.clientWidth - width) / 2, top: (canvas.clientHeight - height) / 2, width, height };
}

// Where a pointer is, as [row, column], shares of the image's height and width; outside it below 0 or above 1.
function placeIn(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const { left, top, width, height } = imageIn(canvas);
  return [(event.clientY - box.top - top) / height, (event.clientX - box.left - left) / width];
}

function boxOf(from, to) {
  const clamped = [from, to].map((place) => place.map((value) => Math.min(1, Math.max(0, value))));
  const [rows, columns] = [0, 1].map((axis) => clamped.map((place) => place[axis]).sort((a, b) => a - b));
  return [rows[0], columns[0], rows[1], columns[1]];
}
