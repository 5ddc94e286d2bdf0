// How far to trust the model here: calibration, and the model against the judge.
function makeTrust() {
  const trust = data.trust;
  const part = section("trust", "Can the classifier be trusted here?", trust.lead, { short: "Trust" });
  for (const note of trust.notes) part.append(make("p", { class: `banner ${note.alarm ? "alarm" : ""}` }, note.text));
  if (trust.metrics.length) {
    part.append(make("h3", {}, trust.metrics_title), table(trust.metrics_columns, trust.metrics));
  }
  const charts = make("div", { class: "columns" });
  part.append(charts);
  const drawings = [];
  if (trust.reliability) drawings.push([drawReliability, "Calibration: pages with about the same score. On the dashed line a score means what the judge says; bars are intervals."]);
  if (trust.agreement) drawings.push([drawAgreement, "The judge's score (across) and the model's (up); the stronger the colour, the more pages. The line is the threshold."]);
  if (trust.curve) drawings.push([drawPrecisionRecall, "Precision and recall of the kept class on labelled pages, at every threshold; the dot is the threshold."]);
  if (trust.decisions) drawings.push([drawDecisions, "Labelled pages by the model's score: coloured is what the judge keeps, grey what it drops."]);
  const holders = drawings.map(([, caption]) => {
    const chart = make("div", {});
    charts.append(make("figure", {}, chart, make("figcaption", {}, caption)));
    return chart;
  });
  let moves = [];
  const draw = () => {
    moves = drawings.map(([drawing], i) => {
      const { svg, move } = drawing(holders[i].clientWidth || 420);
      put(holders[i], svg.node());
      if (move) move();
      return move;
    }).filter(Boolean);
  };
  on("view", draw);
  new ResizeObserver(draw).observe(charts);
  on("threshold", () => { for (const move of moves) move(); });
  draw();
}

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

function drawReliability(width) {
  const bins = data.trust.reliability, top = Math.max(1, d3.max(bins, (bin) => Math.max(bin.score, bin.high)) * 1.05);
  const { svg, plot, x, y } = frame_(width, [0, top], [0, top], "model's mean score", "judge's mean score");
  plot.append("line").attr("class", "ideal").attr("x1", 0).attr("y1", y(0)).attr("x2", x(top)).attr("y2", y(top));
  const some = plot.selectAll(".bin").data(bins).enter().append("g");
  some.append("line").attr("class", "error").attr("x1", (bin) => x(bin.score)).attr("x2", (bin) => x(bin.score))
    .attr("y1", (bin) => y(bin.low)).attr("y2", (bin) => y(bin.high));
  some.append("circle").attr("class", "kept").attr("cx", (bin) => x(bin.score)).attr("cy", (bin) => y(bin.judge)).attr("r", 4.5)
    .append("title").text((bin) => `${many(Math.round(bin.rows), "page")}: model ${bin.score.toFixed(2)}, judge ${bin.judge.toFixed(2)}`);
  return { svg };
}

function drawAgreement(width) {
  const { cells, judge_step: wide, model_step: tall, judge_high: right, model_high: top } = data.trust.agreement;
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

function drawPrecisionRecall(width) {
  const points = data.trust.curve;
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

function drawDecisions(width) {
  const rows = data.trust.decisions, step = rows.length > 1 ? rows[1][0] - rows[0][0] : 0.25;
  const high = d3.max(rows, (row) => row[1] + row[2]) || 1;
  const { svg, plot, x, y } = frame_(width, [rows[0][0], rows[rows.length - 1][0] + step], [0, high * 1.03], "model's score", "pages");
  const wide = Math.max(1, x(rows[0][0] + step) - x(rows[0][0]) - 1);
  const bars = plot.selectAll(".bar-of").data(rows).enter().append("g").attr("transform", (row) => `translate(${x(row[0])},0)`);
  bars.append("rect").attr("class", "dropped").attr("width", wide).attr("y", (row) => y(row[1] + row[2])).attr("height", (row) => y(0) - y(row[2]));
  bars.append("rect").attr("class", "kept").attr("width", wide).attr("y", (row) => y(row[1])).attr("height", (row) => y(0) - y(row[1]));
  const rule = plot.append("line").attr("class", "rule").attr("y1", 0).attr("y2", y(0));
  return { svg, move: () => rule.attr("x1", x(Math.min(score(), x.domain()[1]))).attr("x2", x(Math.min(score(), x.domain()[1]))) };
}
