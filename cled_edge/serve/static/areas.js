"use strict";
// Areas on the page: a box that is dragged over the large image becomes one; each has a row that says what holds there.

// What a row may ask for. of: the key of an area that its slider turns, from `low` to 1.
const AREA_KINDS = [
  { label: "Remove a share, both", of: "share", low: 0, begin: 0, modality: "both" },
  { label: "Remove a share, infrared", of: "share", low: 0, begin: 0, modality: "infrared" },
  { label: "Remove a share, visible", of: "share", low: 0, begin: 0, modality: "visible" },
  { label: "Lean: visible to infrared", of: "attention", low: -1, begin: 1, modality: "both" },
  { label: "Infrared shows nothing", modality: "infrared" },
  { label: "Visible shows nothing", modality: "visible" },
];
const LEAST_DRAG = 0.01; // of the image: less is a click
const EDITED_MS = 1500; // after an edit the robot's answer counts, not a status that was on its way

class AreaEditor {
  constructor() {
    this.areas = []; // as the robot has them
    this.rowsOf = ""; // the text of the areas that the rows show
    this.canvas = $("main").querySelector("canvas");
    this.drawing = false;
    this.from = this.sketch = null;
    this.edited = -Infinity;
    this.sending = Promise.resolve();
    $("areas-draw").addEventListener("click", () => this.arm(!this.drawing));
    $("areas-clear").addEventListener("click", () => this.edit(() => []));
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.from && this.show(boxOf(this.from, placeIn(this.canvas, event))));
    this.canvas.addEventListener("pointerup", () => this.end());
    for (const name of ["pointercancel", "lostpointercapture"]) this.canvas.addEventListener(name, () => this.show(this.from = null));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.arm(false));
    new ResizeObserver(() => this.outline()).observe(this.canvas);
  }

  arm(drawing) {
    this.drawing = drawing && state.main !== "side-by-side";
    this.from = this.sketch = null;
    $("areas-draw").setAttribute("aria-pressed", String(this.drawing));
    this.canvas.classList.toggle("drawing", this.drawing);
    this.outline();
  }

  // Another view is shown large.
  view() {
    $("areas-draw").disabled = state.main === "side-by-side"; // three images, and no place on one
    this.arm(this.drawing);
  }

  begin(event) {
    if (!this.drawing || event.button !== 0 || !event.isPrimary) return;
    this.from = placeIn(this.canvas, event);
    this.canvas.setPointerCapture(event.pointerId);
  }

  end() {
    const box = this.sketch;
    if (!this.from) return;
    this.arm(false);
    if (!box || box[2] - box[0] < LEAST_DRAG || box[3] - box[1] < LEAST_DRAG) return;
    this.edit((areas) => [...areas, { polygon: cornersOf(box), share: 0 }]);
  }

  // One edit after the other, each of what the robot has by then: another page, or a detector, may have drawn meanwhile.
  edit(change) {
    this.sending = this.sending.then(async () => {
      this.edited = performance.now();
      try {
        const { areas } = await (await fetch("/areas")).json();
        const told = await post("/areas", { areas: change(areas.map(without)) });
        $("areas-said").textContent = "";
        this.edited = -Infinity;
        this.take(told.areas);
        this.edited = performance.now();
      } catch (error) {
        $("areas-said").textContent = error.message;
        $("areas").hidden = false;
        this.rowsOf = ""; // they show what does not hold
      }
    });
  }

  // What the robot says: it is the one that knows.
  take(areas) {
    const isHeld = $("areas-rows").contains(document.activeElement) && document.activeElement.matches("select, input:active");
    if (performance.now() - this.edited < EDITED_MS || isHeld) return;
    this.areas = areas.map(without);
    if (this.areas.length || !$("areas-said").textContent) $("areas").hidden = !this.areas.length;
    this.outline();
    const text = JSON.stringify(this.areas);
    if (text === this.rowsOf) return;
    this.rowsOf = text;
    $("areas-rows").replaceChildren(...this.areas.map((area, index) => this.row(area, index)));
  }

  row(area, index) {
    const row = document.createElement("div");
    row.className = "control";
    const chosen = AREA_KINDS[kindOf(area)];
    const kind = Object.assign(document.createElement("select"), { ariaLabel: `area ${index + 1}` });
    for (const { label } of AREA_KINDS) kind.append(new Option(label));
    kind.selectedIndex = kindOf(area);
    const slider = Object.assign(document.createElement("input"), { type: "range", min: chosen.low ?? 0, max: 1, step: 0.05, ariaLabel: `how much, area ${index + 1}` });
    slider.value = chosen.of ? area[chosen.of] : 0;
    slider.hidden = !chosen.of;
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove", title: "Remove this area" });
    // The area may have moved, or gone, since this row was made: then there is nothing to change.
    const before = JSON.stringify(area);
    const become = (changed) => row.isConnected && this.edit((areas) => areas.flatMap((each) => (JSON.stringify(each) === before ? changed : [each])));
    kind.addEventListener("change", () => {
      kind.blur();
      become([areaOf(area.polygon, AREA_KINDS[kind.selectedIndex])]);
    });
    slider.addEventListener("change", () => become([{ ...area, [chosen.of]: Number(slider.value) }]));
    remove.addEventListener("click", () => become([]));
    row.append(kind, remove, slider);
    return row;
  }

  show(box) {
    this.sketch = box;
    this.outline();
  }

  outline() {
    const svg = $("boxes");
    const { left, top, width, height } = imageIn(this.canvas);
    Object.assign(svg.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    svg.toggleAttribute("hidden", state.main === "side-by-side");
    const polygons = this.areas.map((area) => (area.polygon?.length ? area.polygon : cornersOf([0, 0, 1, 1])));
    if (this.sketch) polygons.push(cornersOf(this.sketch));
    svg.replaceChildren(
      ...polygons.map((corners) => {
        const drawn = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
        drawn.setAttribute("points", corners.map(([row, column]) => `${column},${row}`).join(" "));
        return drawn;
      }),
    );
  }
}

// An area without the keys that say nothing.
function without(area) {
  return Object.fromEntries(Object.entries(area).filter(([, value]) => value !== null));
}

function kindOf(area) {
  if (area.valid === false) return area.modality === "infrared" ? 4 : 5;
  if (area.share === undefined) return 3;
  return ["both", "infrared", "visible"].indexOf(area.modality || "both");
}

function areaOf(polygon, kind) {
  return { polygon, modality: kind.modality, ...(kind.of ? { [kind.of]: kind.begin } : { valid: false }) };
}

function cornersOf([top, left, bottom, right]) {
  return [[top, left], [top, right], [bottom, right], [bottom, left]];
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
