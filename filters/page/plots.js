// Charts of a model's scores beside the judge's. Each takes its width and data, and returns { svg, move }: `move`
// follows `score()`, the threshold.
function frame_(width, xDomain, yDomain, xLabel, yLabel, { ticks = 5, format = null } = {}) {
  const left = 46, bottom = 40, top = 24, right = 12, height = Math.min(320, Math.max(220, width * 0.66));
  const x = d3.scaleLinear().domain(xDomain).range([0, width - left - right]);
  const y = d3.scaleLinear().domain(yDomain).range([height - top - bottom, 0]);
  const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("height", height);
  const plot = svg.append("g").attr("transform", `translate(${left},${top})`);
  plot.append("g").attr("class", "grid").call(d3.axisLeft(y).ticks(ticks).tickSize(-x.range()[1]).tickFormat(""));
  plot.append("g").attr("class", "axis").attr("transform", `translate(0,${y.range()[0]})`).call(d3.axisBottom(x).ticks(ticks, format));
  plot.append("g").attr("class", "axis").call(d3.axisLeft(y).ticks(ticks, format));
  plot.append("text").attr("x", x.range()[1]).attr("y", y.range()[0] + 34).attr("text-anchor", "end").text(xLabel);
  plot.append("text").attr("x", -left + 6).attr("y", -10).text(yLabel);
  return { svg, plot, x, y };
}

function drawReliability(width, bins) {
  const top = Math.max(1, d3.max(bins, (bin) => Math.max(bin.score, bin.high)) * 1.05);
  const { svg, plot, x, y } = frame_(width, [0, top], [0, top], "model's mean score", "judge's mean score");
  plot.append("line").attr("class", "ideal").attr("x1", 0).attr("y1", y(0)).attr("x2", x(top)).attr("y2", y(top));
  const some = plot.selectAll(".bin").data(bins).enter().append("g");
  some.append("line").attr("class", "error").attr("x1", (bin) => x(bin.score)).attr("x2", (bin) => x(bin.score))
    .attr("y1", (bin) => y(bin.low)).attr("y2", (bin) => y(bin.high));
  some.append("circle").attr("class", "kept").attr("cx", (bin) => x(bin.score)).attr("cy", (bin) => y(bin.judge)).attr("r", 4.5)
    .append("title").text((bin) => `${many(Math.round(bin.rows), "page")}: model ${bin.score.toFixed(2)}, judge ${bin.judge.toFixed(2)}`);
  return { svg };
}

function drawAgreement(width, { cells, judge_step: wide, model_step: tall, judge_high: right, model_high: top }) {
  const { svg, plot, x, y } = frame_(width, [-wide / 2, right + wide / 2], [0, top], "judge's score", "model's score");
  const most = d3.max(cells, (cell) => cell[2]) || 1;
  const shade = d3.scaleSqrt().domain([0, most]).range([0.08, 1]);
  plot.selectAll(".cell").data(cells).enter().append("rect").attr("class", "kept").attr("fill-opacity", (cell) => shade(cell[2]))
    .attr("x", (cell) => x(cell[0] - wide / 2) + 0.5).attr("width", Math.max(1, x(wide) - x(0) - 1))
    .attr("y", (cell) => y(cell[1] + tall) + 0.5).attr("height", Math.max(1, y(0) - y(tall) - 1))
    .append("title").text((cell) => `judge ${cell[0].toFixed(1)}, model ${cell[1].toFixed(2)} to ${(cell[1] + tall).toFixed(2)}: ${many(cell[2], "page")}`);
  const rule = plot.append("line").attr("class", "rule").attr("x1", 0).attr("x2", x.range()[1]);
  return { svg, move: () => rule.attr("y1", y(Math.min(score(), top))).attr("y2", y(Math.min(score(), top))) };
}

function drawPrecisionRecall(width, points) {
  const { svg, plot, x, y } = frame_(width, [0, 1], [0, 1], "recall", "precision", { format: "%" });
  plot.append("path").attr("class", "line documents").attr("d", d3.line().x((point) => x(point[2])).y((point) => y(point[1]))(points));
  const dot = plot.append("circle").attr("class", "dot").attr("r", 5.5), title = dot.append("title");
  return { svg, move: () => {
    const at = points.reduce((best, point) => (point[0] >= score() && (!best || point[0] < best[0]) ? point : best), null);
    dot.attr("visibility", at ? null : "hidden");
    if (!at) return;
    dot.attr("cx", x(at[2])).attr("cy", y(at[1]));
    title.text(`score at least ${said(score())}: precision ${at[1].toFixed(2)}, recall ${at[2].toFixed(2)}`);
  } };
}

function drawDecisions(width, rows) {
  const step = rows.length > 1 ? rows[1][0] - rows[0][0] : 0.25;
  const high = d3.max(rows, (row) => row[1] + row[2]) || 1;
  const { svg, plot, x, y } = frame_(width, [rows[0][0], rows[rows.length - 1][0] + step], [0, high * 1.03], "model's score", "pages");
  const wide = Math.max(1, x(rows[0][0] + step) - x(rows[0][0]) - 1);
  const bars = plot.selectAll(".bar-of").data(rows).enter().append("g").attr("transform", (row) => `translate(${x(row[0])},0)`);
  bars.append("rect").attr("class", "dropped").attr("width", wide).attr("y", (row) => y(row[1] + row[2])).attr("height", (row) => y(0) - y(row[2]));
  bars.append("rect").attr("class", "kept").attr("width", wide).attr("y", (row) => y(row[1])).attr("height", (row) => y(0) - y(row[1]));
  const rule = plot.append("line").attr("class", "rule").attr("y1", 0).attr("y2", y(0));
  return { svg, move: () => rule.attr("x1", x(Math.min(score(), x.domain()[1]))).attr("x2", x(Math.min(score(), x.domain()[1]))) };
}

// Values with intervals, a row each: [name, [value, low, high], ...]; a line marks what they are compared with.
function drawIntervals(width, { rows, label, reference, format }) {
  const left = Math.min(230, width * 0.4), tall = 20, right = 14, top = 8, height = top + rows.length * tall + 42;
  const ends = rows.flatMap((row) => row.slice(1).flat()).concat([0, reference === null ? 0 : reference]);
  const x = d3.scaleLinear().domain([d3.min(ends), d3.max(ends) * 1.03 || 1]).range([left, width - right]);
  const svg = d3.create("svg").attr("viewBox", `0 0 ${width} ${height}`).attr("height", height);
  svg.append("g").attr("class", "axis").attr("transform", `translate(0,${height - 40})`).call(d3.axisBottom(x).ticks(5, format));
  svg.append("text").attr("x", width - right).attr("y", height - 6).attr("text-anchor", "end").text(label);
  rows.forEach(([name, ...estimates], i) => {
    const middle = top + (i + 0.5) * tall, each = (tall - 5) / estimates.length;
    const line = svg.append("g");
    line.append("title").text(name);
    line.append("text").attr("x", left - 6).attr("y", middle + 4).attr("text-anchor", "end").text(name.length > 32 ? `${name.slice(0, 31)}...` : name);
    estimates.forEach(([value, low, high], k) => {
      const y = middle - (tall - 5) / 2 + k * each;
      line.append("rect").attr("class", k ? "dropped" : "kept").attr("x", Math.min(x(0), x(value))).attr("y", y).attr("height", each - 1)
        .attr("width", Math.abs(x(value) - x(0)));
      line.append("line").attr("class", "ideal").attr("x1", x(low)).attr("x2", x(high)).attr("y1", y + each / 2).attr("y2", y + each / 2);
    });
  });
  if (reference !== null) svg.append("line").attr("class", "rule").attr("x1", x(reference)).attr("x2", x(reference)).attr("y1", 0).attr("y2", height - 40);
  return { svg };
}

// Coverage of bands by the score; dashed lines are what was asked for.
function drawCoverage(width, lines) {
  const every = lines.flatMap((line) => line.points), ends = every.map((point) => point[1]).concat(lines.map((line) => line.asked));
  const { svg, plot, x, y } = frame_(width, [0, d3.max(every, (point) => point[0])], [d3.min(ends) - 0.02, 1], "model's score", "judge in the band", { format: "~g" });
  lines.forEach(({ asked, points }, i) => {
    const name = ["documents", "tokens", "bytes", "recall"][i % 4];
    plot.append("line").attr("class", "ideal").attr("x1", 0).attr("x2", x.range()[1]).attr("y1", y(asked)).attr("y2", y(asked));
    plot.append("path").attr("class", `line ${name}`).attr("d", d3.line().x((point) => x(point[0])).y((point) => y(point[1]))(points));
  });
  return { svg };
}

const CHARTS = { reliability: drawReliability, agreement: drawAgreement, curve: drawPrecisionRecall, decisions: drawDecisions,
  intervals: drawIntervals, coverage: drawCoverage };

// Figures side by side that are drawn again when their width changes; returns what follows the threshold.
function figures(holder, charts) {
  const rows = charts.map(({ kind, caption, data: given }) => {
    const chart = make("div", {});
    holder.append(make("figure", {}, chart, make("figcaption", {}, caption)));
    return { kind, chart, given };
  });
  let moves = [];
  const draw = () => {
    moves = rows.map(({ kind, chart, given }) => {
      const { svg, move } = CHARTS[kind](chart.clientWidth || 420, given);
      put(chart, svg.node());
      if (move) move();
      return move;
    }).filter(Boolean);
  };
  new ResizeObserver(draw).observe(holder);
  draw();
  return { draw, move: () => { for (const move of moves) move(); } };
}
