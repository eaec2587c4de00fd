"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const KEYS = data.outcomes.map(([name]) => name.replace(" ", "-"));
const MOST_WORKERS = 40;  // in their table
const at = (id) => document.getElementById(id);

// -- words and numbers

function el(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
function count(n) { return Math.round(n).toLocaleString("en"); }
function short(n) {
  if (n === 0) return "0";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (n >= size) return `${+(n / size).toPrecision(3)} ${unit}`;
  return `${+n.toPrecision(3)}`;
}
function brief(n) { return n < 1e7 ? count(n) : short(n); }
function bytes(n) {
  for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "KB"]])
    if (n >= size) return `${+(n / size).toPrecision(3)} ${unit}`;
  return `${Math.round(n)} B`;
}
function money(n) { return n >= 0.1 || n === 0 ? n.toFixed(2) : `${+n.toPrecision(2)}`; }
function duration(s) {
  if (s === 0) return "0 s";
  if (s < 0.001) return `${+(s * 1e6).toPrecision(2)} µs`;
  if (s < 1) return `${+(s * 1000).toPrecision(3)} ms`;
  if (s < 90) return `${+s.toPrecision(3)} s`;
  if (s < 5400) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
}
function moment(s) {  // on a time axis
  const pad = (n) => String(Math.floor(n)).padStart(2, "0");
  if (data.seconds < 90) return `${+s.toFixed(2)} s`;
  if (data.seconds < 5400) return `${Math.floor(s / 60)}:${pad(s % 60)}`;
  return `${Math.floor(s / 3600)}:${pad((s % 3600) / 60)} h`;
}
function workerName(number) {
  const [node, process] = data.workers[number] || ["unknown", 0];
  return process ? `${node} ${process}` : node;
}
function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(); }

// -- parts without a drawing

function table(id, head, rows, none) {
  const box = at(id);
  if (!rows.length) { box.replaceChildren(el("p", "hint", none)); return; }
  const made = el("table");
  if (head.length) {
    const line = made.createTHead().insertRow();
    for (const [text, kind] of head) line.append(el("th", kind, text));
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((cell, i) => {
      const kind = head.length ? head[i][1] : i ? "text" : "";
      const td = el(head.length || i ? "td" : "th", kind);
      td.append(cell);
      line.append(td);
    });
  }
  box.replaceChildren(made);
}
function bar(share, text) {
  const box = document.createDocumentFragment();
  const mark = el("i", "bar");
  mark.style.width = `${Math.max(share * 90, 1)}px`;
  box.append(mark, ` ${text}`);
  return box;
}

function showHead() {
  const job = data.job;
  at("path").textContent = `Backfill ${job.job_id}`;
  at("title").textContent = `${job.table}.${job.columns.join(", ")}`;
  const state = at("state");
  state.textContent = job.state;
  state.classList.add(job.state);
  const where = job.cluster ? `on cluster ${job.cluster}` : `on ${job.host}`;
  at("sub").textContent = `started ${job.started_at.replace("T", " ").replace("+00:00", " UTC")} by ${job.user} ${where}`;
  for (const text of data.notes) at("notes").append(el("p", "note", text));
  if (job.error) at("notes").append(el("p", "note error", job.error));
}

function showCards() {
  const t = data.totals;
  const cards = [
    ["took", duration(data.seconds)],
    [t.rows_done === t.rows_total ? "rows done" : `rows done of ${brief(t.rows_total)}`, brief(t.rows_done)],
    ["rows a second", short(t.rows_per_second)],
    ["rows failed", brief(t.rows_failed)],
    t.rows_resumed ? ["rows taken over", brief(t.rows_resumed)] : null,
    ["workers", count(t.workers)],
    ["of their time busy", `${Math.round(100 * t.busy)}%`],
    ["tasks", count(t.tasks)],
    ["median task", duration(t.task_seconds)],
    ["calls", brief(t.calls)],
    ["input read", bytes(t.bytes_read)],
    ["written", bytes(t.bytes_written)],
    ["peak of a worker", bytes(t.memory)],
    data.cost && data.cost.amount !== null ? ["cost at least", `${money(data.cost.amount)} ${data.cost.currency}`] : null,
  ];
  for (const card of cards) {
    if (!card) continue;
    const box = el("div");
    box.append(el("div", "value", card[1]), el("div", "label", card[0]));
    at("cards").append(box);
  }
}

function showPhases() {
  const names = [...new Set(data.phases.map(([name]) => name))];
  for (const name of names) {
    const line = el("div", "phase"), track = el("div", "track");
    let total = 0;
    for (const [, start, end] of data.phases.filter(([other]) => other === name)) {
      const stop = end === null ? data.seconds : end;
      const piece = el("i");
      piece.style.left = `${100 * start / data.seconds}%`;
      piece.style.width = `${100 * (stop - start) / data.seconds}%`;
      track.append(piece);
      total += stop - start;
    }
    line.append(el("span", "", name), track, el("span", "number", duration(total)));
    at("phases").append(line);
  }
  if (!names.length) at("phases").append(el("p", "hint", "None are recorded."));
}

function costWords(cost) {
  if (cost.amount === null) return `unknown: ${cost.problem}`;
  const hours = Object.entries(cost.pod_hours).map(([group, n]) => `${+n.toPrecision(3)} pod hours of ${group}`);
  return `${money(cost.amount)} ${cost.currency} at least: ${hours.join(", ")} (prices: ${cost.source})`;
}
function showTables() {
  const median = data.totals.task_seconds;
  at("stragglers-hint").textContent = data.stragglers.length
    ? `Tasks that took more than three times the median of ${duration(median)}, the longest first.` : "";
  table("stragglers",
    [["seconds", "number"], ["× median", "number"], ["began at", "number"], ["rows", "number"], ["outcome"], ["fragment", "number"],
      ["columns", "text"], ["worker", "text"]],
    data.stragglers.map((s) => [duration(s.seconds), s.times === null ? "" : `${s.times}`, moment(s.start), count(s.rows),
      data.outcomes[s.outcome][0], s.works > 1 ? `${s.fragment} + ${s.works - 1}` : `${s.fragment}`, s.columns, workerName(s.worker)]),
    "None: no task took three times as long as most.");
  const most = Math.max(...data.errors.map(([, n]) => n), 1);
  table("errors", [["exception"], ["rows"], ["the first of them", "text"], ["_rowaddr", "number"]],
    data.errors.map(([kind, n, message, row]) => [kind, bar(n / most, count(n)), message, row === null ? "" : `${row}`]),
    "No row failed.");
  const peak = Math.max(...data.workers.map((w) => w[5]), 1);
  let shown = [...data.workers.entries()];
  if (shown.length > MOST_WORKERS) {
    shown = shown.sort(([, a], [, b]) => b[5] - a[5]).slice(0, MOST_WORKERS);
    at("workers-hint").textContent = `The ${MOST_WORKERS} of ${count(data.totals.workers)} with the highest peak of memory.`;
  }
  table("workers", [["worker", "text"], ["tasks", "number"], ["rows", "number"], ["busy", "number"], ["peak memory"]],
    shown.map(([i, w]) => [workerName(i), count(w[2]), count(w[3]), duration(w[4]), bar(w[5] / peak, w[5] ? bytes(w[5]) : "unknown")]),
    "No worker took a task.");
  const job = data.job;
  const rows = [["functions", job.functions.join(", ")], ["versions", job.versions.join(", ")], ["ran on", job.executor],
    ["cluster", job.cluster], ["manifest", job.manifest], ["read version", job.read_version === null ? "" : `${job.read_version}`],
    ["options", Object.keys(job.options).length ? JSON.stringify(job.options) : ""], ["ended", job.ended_at], ["cost", data.cost ? costWords(data.cost) : ""]];
  table("job", [], rows.filter(([, value]) => value), "");
}

// -- drawings

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function ticks(top, most) {  // round numbers from 0 to at least top
  const raw = top / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((n) => n * power >= raw);
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, i) => i * step);
}
const TIMES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
function timeTicks(width) {
  const room = Math.max(Math.floor(width / 66), 1);
  const step = TIMES.find((s) => data.seconds / s <= room) || 86400 * Math.ceil(data.seconds / 86400 / room);
  return Array.from({ length: Math.floor(data.seconds / step) + 1 }, (_, i) => i * step);
}

/** Steps over the job's time, of other values in red beside them; null is a gap. */
function curve(id, step, values, format, failed = []) {
  const box = at(id), width = box.clientWidth, height = 150, left = 58, bottom = 20, top = 6;
  const known = [...values, ...failed].filter((v) => v !== null);
  if (!known.length || !data.seconds) { box.replaceChildren(el("p", "hint", "Nothing is recorded.")); return; }
  const lines = ticks(Math.max(...known) || 1, 4), highest = lines[lines.length - 1];
  const x = (s) => left + (width - left - 8) * Math.min(s / data.seconds, 1);
  const y = (v) => height - bottom - (height - bottom - top) * v / highest;
  const made = svg("svg", { width, height, role: "img" });
  for (const v of lines) {
    made.append(svg("line", { x1: left, x2: width - 8, y1: y(v), y2: y(v), stroke: "var(--line)" }));
    made.append(svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, format(v)));
  }
  for (const s of timeTicks(width - left)) made.append(svg("text", { x: x(s), y: height - 5, "text-anchor": "middle" }, moment(s)));
  for (const [heights, ink] of failed.some((v) => v) ? [[values, "done"], [failed, "failed"]] : [[values, "done"]]) {
    let line = "", area = "";
    heights.forEach((v, i) => {
      if (v === null) return;
      const from = x(i * step).toFixed(1), to = x((i + 1) * step).toFixed(1), high = y(v).toFixed(1);
      line += `${i && heights[i - 1] !== null ? "L" : "M"}${from} ${high}H${to}`;
      area += `M${from} ${y(0)}V${high}H${to}V${y(0)}Z`;
    });
    made.append(svg("path", { d: area, fill: `var(--${ink})`, opacity: 0.18 }));
    made.append(svg("path", { d: line, fill: "none", stroke: `var(--${ink})`, "stroke-width": 1.5 }));
  }
  box.replaceChildren(made);
}

/** The rate in each step; the last step of a job may be a short one. */
function rates(values) {
  const { step } = data.series;
  return values.map((v, i) => v / Math.max(Math.min(step, data.seconds - i * step), step / 4));
}

const FONT = "11px system-ui, sans-serif";
const view = {};  // of the timeline, for what the pointer is on
function timeline() {
  const box = at("timeline"), workers = data.workers.length, marks = data.marks;
  if (!workers) { box.replaceChildren(el("p", "hint", "No task is recorded.")); return; }
  const width = box.clientWidth, row = Math.max(Math.min(Math.floor(900 / workers), 22), 2), bottom = 20;
  const scale = window.devicePixelRatio || 1, canvas = el("canvas"), measure = canvas.getContext("2d");
  measure.font = FONT;
  const names = Math.max(...data.workers.map((_, i) => measure.measureText(workerName(i)).width));
  const left = row >= 11 ? Math.ceil(Math.min(names + 10, width * 0.3)) : 8, height = row * workers + bottom;
  Object.assign(canvas, { width: width * scale, height: height * scale });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const pen = canvas.getContext("2d"), total = data.seconds * 1000 || 1;
  const x = (ms) => left + (width - left - 2) * ms / total;
  pen.scale(scale, scale);
  pen.font = FONT;
  axis(pen, x, width, height, left, bottom);
  if (left > 8) for (let i = 0; i < workers; i++) label(pen, workerName(i), left - 8, row * (i + 0.5) + 4);
  const colours = KEYS.map(colour), gap = row >= 5 ? 1 : 0, done = KEYS.indexOf("done");
  const order = [...marks.worker.keys()].sort((a, b) => (marks.outcome[b] === done) - (marks.outcome[a] === done));
  for (const i of order) {  // what is rare lies above, two pixels wide at least
    const from = x(marks.start[i]), full = x(marks.end[i]) - from;
    const wide = Math.max(full - (full > 3 ? 1 : 0), marks.outcome[i] === done ? 0.7 : 2);
    pen.fillStyle = colours[marks.outcome[i]];
    pen.fillRect(from, row * marks.worker[i] + gap, wide, row - 2 * gap);
    if (!marks.failed[i]) continue;
    const share = marks.failed[i] / (marks.rows[i] + marks.failed[i]), high = Math.max(share * (row - 2 * gap), Math.min(2, row / 2));
    pen.fillStyle = colours[2];
    pen.fillRect(from, row * marks.worker[i] + row - gap - high, wide, high);
  }
  Object.assign(view, { row, left, width, total });
  canvas.onpointermove = canvas.onpointerdown = point;
  canvas.onpointerleave = () => { at("tip").hidden = true; };
  box.replaceChildren(canvas);
}
function axis(pen, x, width, height, left, bottom) {
  pen.textAlign = "center";
  for (const s of timeTicks(width - left)) {
    pen.fillStyle = colour("line");
    pen.fillRect(x(s * 1000), 0, 1, height - bottom);
    pen.fillStyle = colour("soft");
    const edge = Math.min(Math.max(x(s * 1000), 14), width - 18);
    pen.fillText(moment(s), edge, height - 5);
  }
}
function label(pen, text, room, y) {
  pen.textAlign = "left";
  pen.fillStyle = colour("soft");
  let shown = text;
  while (shown.length > 4 && pen.measureText(shown).width > room) shown = `…${shown.slice(shown.startsWith("…") ? 2 : 1)}`;
  pen.fillText(shown, 0, y);
}
function point(event) {
  const tip = at("tip"), bounds = event.target.getBoundingClientRect(), marks = data.marks;
  const worker = Math.floor((event.clientY - bounds.top) / view.row);
  const ms = (event.clientX - bounds.left - view.left) / (view.width - view.left - 2) * view.total;
  const slack = 3 * view.total / view.width;
  const near = (i) => Math.max(marks.start[i] - ms, ms - marks.end[i], 0);
  let best = -1;
  for (let i = 0; i < marks.worker.length; i++)
    if (marks.worker[i] === worker && near(i) < slack && (best < 0 || near(i) < near(best))) best = i;
  tip.hidden = best < 0;
  if (best < 0) return;
  const took = (marks.end[best] - marks.start[best]) / 1000, n = marks.tasks[best];
  tip.textContent = [workerName(worker), n > 1 ? `${n} tasks, ${data.outcomes[marks.outcome[best]][0]}` : data.outcomes[marks.outcome[best]][0],
    `${moment(marks.start[best] / 1000)} to ${moment(marks.end[best] / 1000)} (${duration(took)})`,
    `${count(marks.rows[best])} rows${marks.failed[best] ? `, ${count(marks.failed[best])} failed` : ""}`].join("\n");
  tip.style.left = `${Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 6)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 6)}px`;
}

function showLegend() {
  data.outcomes.forEach(([name, n], i) => {
    if (!n) return;
    const item = el("span"), mark = el("i");
    mark.style.background = `var(--${KEYS[i]})`;
    item.append(mark, `${name} ${count(n)}`);
    at("outcomes").append(item);
  });
  if (data.totals.rows_failed) at("rows-title").textContent += ", failed ones in red";
  const merged = data.marks.worker.length < data.totals.tasks;
  const parts = [merged ? "Short tasks that follow each other are drawn as one." : "",
    data.totals.rows_failed ? "Red from below: the share of its rows that failed." : "", data.totals.tasks ? "Point at a task for its figures." : ""];
  at("timeline-hint").textContent = parts.filter(Boolean).join(" ");
}

function draw() {
  timeline();
  curve("rows", data.series.step, rates(data.series.rows), short, rates(data.series.failed));
  curve("bytes", data.series.step, rates(data.series.bytes_read), bytes);
  curve("batch-rows", data.batches.step, data.batches.rows, short);
  curve("batch-seconds", data.batches.step, data.batches.seconds, duration);
}

showHead();
showCards();
showPhases();
showLegend();
showTables();
draw();
let drawn = window.innerWidth;
window.addEventListener("resize", () => { if (window.innerWidth !== drawn) { drawn = window.innerWidth; draw(); } });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
