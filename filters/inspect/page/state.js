// What the threshold is, and what it keeps.
const WEIGHTS = ["documents", "tokens", "bytes"];
const BINS = data.histogram.bins;
const STEP = (data.histogram.high - data.histogram.low) / BINS;
const DIGITS = Math.max(0, Math.ceil(-Math.log10(STEP) - 1e-9));

// sums[i] is what lies at or above border i.
function fromTop(counts) {
  const sums = new Array(BINS + 1).fill(0);
  for (let i = BINS - 1; i >= 0; i--) sums[i] = sums[i + 1] + counts[i];
  return sums;
}
function dense(trimmed, weight) {
  const counts = new Array(BINS).fill(0);
  trimmed[weight].forEach((count, i) => { counts[trimmed.first + i] = count; });
  return counts;
}
const counts = {}, above = {}, totals = {};
for (const weight of WEIGHTS) {
  counts[weight] = dense(data.histogram, weight);
  above[weight] = fromTop(counts[weight]);
  totals[weight] = above[weight][0];
}

const border = (i) => Number((data.histogram.low + i * STEP).toFixed(DIGITS));
const nearest = (score) => clamp(Math.round((score - data.histogram.low) / STEP), 0, BINS);

// The part of the scale where scores lie, with a little room: [first border, last border].
const occupied = (() => {
  const some = counts.documents.map((n, i) => (n ? i : -1)).filter((i) => i >= 0);
  const ends = some.length ? [some[0], some[some.length - 1] + 1] : [0, BINS];
  const room = Math.max(5, Math.round((ends[1] - ends[0]) * 0.03));
  return [clamp(ends[0] - room, 0, BINS), clamp(ends[1] + room, 0, BINS)];
})();

// The run's own threshold need not be a border; it is a place of its own, with its own exact sums.
const own = data.threshold;
const ownBorder = Math.abs(border(nearest(own.score)) - own.score) < 1e-9;
const state = { at: nearest(own.score), own: !ownBorder, weight: "documents", scale: "linear" };
const listeners = { threshold: [], view: [] };
let announceLater = 0;

function score() { return state.own ? own.score : border(state.at); }
function keptOf(weight) { return state.own ? own.kept[weight] : above[weight][state.at]; }
function on(kind, listener) { listeners[kind].push(listener); }
let frame = 0;
function changed(kind) {
  if (kind === "view") { for (const listener of listeners.view) listener(); }
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    for (const listener of listeners.threshold) listener();
  });
}
function setBorder(i) {
  state.at = clamp(i, 0, BINS);
  state.own = false;
  changed("threshold");
  announce();
}
function setScore(value) {
  if (!ownBorder && said(value) === said(own.score)) setOwn(); else setBorder(nearest(value));
}
function setOwn() {
  state.at = nearest(own.score);
  state.own = !ownBorder;
  changed("threshold");
  announce();
}
function announce() {
  clearTimeout(announceLater);
  announceLater = setTimeout(() => {
    document.getElementById("announce").textContent = spoken();
  }, 400);
}
function spoken() {
  return `score at least ${said(score())} keeps ${whole(keptOf("documents"))} documents, ` +
    `${percent(keptOf("documents"), totals.documents)}`;
}
function said(value) {
  // Scores are float32: the threshold 0.3 of a config comes back as 0.30000001192092896.
  const text = value.toFixed(DIGITS), same = (digits) => Math.fround(Number(digits)) === Math.fround(value);
  if (same(text)) return text;
  return String(Number(d3.range(1, 10).map((digits) => value.toPrecision(digits)).find(same)));
}
