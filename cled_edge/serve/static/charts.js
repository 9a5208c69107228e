"use strict";
// Small line charts over the last 30 seconds, without any library.

const SPAN_MS = 30000;
const INK = { line: "#2a313c", muted: "#8b96a3", text: "#e6edf3" };

class Chart {
  // series: [{key, label, color}]; signed: zero lies in the middle. unknown: what to say where no point has a value.
  constructor(canvas, title, series, { signed = false, unknown = "" } = {}) {
    Object.assign(this, { canvas, title, series, signed, unknown });
    this.points = [];
  }

  add(points) {
    if (points.length && this.points.length && points[0].t < this.points[this.points.length - 1].t) this.points = [];
    this.points.push(...points);
    const last = this.points.length ? this.points[this.points.length - 1].t : 0;
    let first = 0;
    while (first < this.points.length && this.points[first].t < last - SPAN_MS) first++;
    this.points.splice(0, first);
  }

  values(key) {
    return this.points.map((point) => point[key]).filter((value) => value !== null && value !== undefined);
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const box = { left: 38, right: width - 4, top: 38, bottom: height - 16 };
    this.head(pen, width);
    const all = this.series.flatMap((each) => this.values(each.key)).map(Math.abs).sort((a, b) => a - b);
    const usual = all.length ? at(all, 0.9) * 1.5 : 0; // one slow frame must not flatten all others
    const top = niceTop(Math.max(usual, this.signed ? 5 : 10));
    const low = this.signed ? -top : 0;
    const y = (value) => box.bottom - ((value - low) / (top - low)) * (box.bottom - box.top);
    pen.font = "11px system-ui, DejaVu Sans, sans-serif";
    pen.lineWidth = 1;
    pen.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      const value = low + share * (top - low);
      pen.strokeStyle = INK.line;
      line(pen, [[box.left, y(value)], [box.right, y(value)]]);
      pen.fillStyle = INK.muted;
      pen.fillText(short(value), box.left - 5, y(value) + 4);
    }
    pen.textAlign = "left";
    pen.fillText("30 s ago", box.left, height - 3);
    pen.textAlign = "right";
    pen.fillText("now", box.right, height - 3);
    if (!all.length) {
      pen.textAlign = "center";
      pen.fillText(this.points.length ? this.unknown : "no frame yet", (box.left + box.right) / 2, (box.top + box.bottom) / 2 - 4);
      return;
    }
    const end = this.points[this.points.length - 1].t;
    const x = (t) => box.right - ((end - t) / SPAN_MS) * (box.right - box.left);
    pen.save();
    pen.beginPath();
    pen.rect(box.left, box.top - 2, box.right - box.left, box.bottom - box.top + 4);
    pen.clip();
    pen.lineWidth = 1.3;
    for (const { key, color } of this.series) {
      const known = this.points.filter((point) => point[key] !== null && point[key] !== undefined);
      pen.strokeStyle = color;
      line(pen, known.map((point) => [x(point.t), y(point[key])]));
    }
    pen.restore();
  }

  head(pen, width) {
    pen.textAlign = "left";
    pen.fillStyle = INK.text;
    pen.font = "600 12px system-ui, DejaVu Sans, sans-serif";
    pen.fillText(this.title, 4, 12);
    pen.font = "11px system-ui, DejaVu Sans, sans-serif";
    let left = 4;
    for (const { key, label, color } of this.series) {
      const values = this.values(key).sort((a, b) => a - b);
      const told = values.length ? `${label} ${short(at(values, 0.5))} / ${short(at(values, 0.99))}` : `${label} –`;
      pen.fillStyle = color;
      pen.fillRect(left, 20, 8, 8);
      pen.fillStyle = INK.muted;
      pen.fillText(told, left + 12, 28);
      left += pen.measureText(told).width + 26;
    }
    pen.textAlign = "right";
    pen.fillText("ms, p50 / p99", width - 4, 12);
  }
}

function at(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

function short(value) {
  const size = Math.abs(value);
  return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 10].map((factor) => factor * power).find((top) => top >= value);
}

function line(pen, places) {
  pen.beginPath();
  places.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}
