// The two large charts share the score axis and the threshold: the histogram above, what is kept below.
const MARGIN = { top: 26, right: 16, bottom: 30, left: 58 };
const tip = make("div", { class: "tip", role: "tooltip", hidden: true });
document.body.append(tip);

function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(event.clientX + 14, 4, innerWidth - box.width - 4)}px`;
  tip.style.top = `${clamp(event.clientY - box.height - 10, 4, innerHeight - box.height - 4)}px`;
}
function hideTip() { tip.hidden = true; }

function shortTicks(weight) {
  return (value) => (weight === "bytes" ? size(value) : value < 1 ? "" : spaced(value));
}

// A log scale for counts: what is less than one document lies on the axis.
const LEAST = 0.7;
function logScale(most) { return d3.scaleLog().domain([LEAST, Math.max(2, most)]).clamp(true); }

// Bars of so many fine bins that each is a few pixels wide.
function barBins(pixels) {
  const span = occupied[1] - occupied[0];
  return [1, 2, 5, 10, 20, 25, 50].find((bins) => pixels / (span / bins) >= 6) || 50;
}

function makeScores() {
  const part = section("scores", "Scores", null);
  const lead = make("p", { class: "muted" });
  const holder = make("figure", { "aria-label": "Histogram of scores with the threshold" });
  const svg = d3.select(holder).append("svg");
  const curveHolder = make("figure", { "aria-label": "What each threshold keeps" });
  const curve = d3.select(curveHolder).append("svg");
  part.append(lead, make("p", { class: "muted" },
    "Drag the threshold, click where it shall be, or focus it and use the arrow keys (Page Up and Page Down: larger steps; Home and End: the ends)."),
    legend(["kept", "kept"], ["dropped", "dropped"]), holder,
    make("h3", {}, "What each threshold keeps"),
    legend(["kept", "documents"], ["second", "tokens"], ["third", "text"],
      ...(data.expected ? [["threshold", `${precisionName} (dashed)`], ["ink", "recall (dotted)"]] : [])),
    curveHolder);

  let x, moveHistogram = () => {}, moveCurve = () => {};
  const place = () => x(clamp(score(), border(occupied[0]), border(occupied[1])));

  function dragged(node) {
    const pick = (event) => setBorder(nearest(x.invert(d3.pointer(event, svg.node())[0] - MARGIN.left)));
    node.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      node.setPointerCapture(event.pointerId);
      hideTip();
      pick(event);
      const handle = svg.select(".handle").node();
      if (handle) handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    node.addEventListener("pointermove", (event) => { if (node.hasPointerCapture(event.pointerId)) pick(event); });
  }

  function keys(event) {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (step) setBorder(state.at + step * (event.shiftKey ? 5 : 1));
    else if (event.key === "Home") setBorder(occupied[0]);
    else if (event.key === "End") setBorder(occupied[1]);
    else return;
    event.preventDefault();
  }

  function drawHistogram(width) {
    const inner = width - MARGIN.left - MARGIN.right, height = 270;
    x = d3.scaleLinear().range([0, inner]).domain([border(occupied[0]), border(occupied[1])]);
    const per = barBins(inner), bars = [];
    for (let i = Math.floor(occupied[0] / per) * per; i < occupied[1]; i += per) {
      const value = d3.sum(counts[state.weight].slice(i, i + per));
      bars.push({ from: i, to: Math.min(i + per, BINS), value });
    }
    const most = d3.max(bars, (bar) => bar.value) || 1;
    const least = d3.min(bars.filter((bar) => bar.value), (bar) => bar.value) || 1;
    const y = state.scale === "log"
      ? d3.scaleLog().domain([Math.min(0.7 * least, most / 2), most]).range([height, 0]).clamp(true)
      : d3.scaleLinear().domain([0, most]).nice().range([height, 0]);
    svg.attr("viewBox", `0 0 ${width} ${height + MARGIN.top + MARGIN.bottom}`)
      .attr("height", height + MARGIN.top + MARGIN.bottom).selectAll("*").remove();
    const plot = svg.append("g").attr("transform", `translate(${MARGIN.left},${MARGIN.top})`);
    const axis = state.scale === "log" ? d3.axisLeft(y).ticks(5, shortTicks(state.weight))
      : d3.axisLeft(y).ticks(5).tickFormat(shortTicks(state.weight));
    const lines = d3.axisLeft(y).ticks(5).tickSize(-inner).tickFormat("");
    if (state.scale === "log") lines.tickValues(d3.range(0, 16).map((power) => 10 ** power).filter((value) => value >= y.domain()[0] && value <= most));
    plot.append("g").attr("class", "grid").call(lines);
    plot.append("g").attr("class", "axis").call(axis);
    plot.append("g").attr("class", "axis").attr("transform", `translate(0,${height})`)
      .call(d3.axisBottom(x).ticks(Math.max(4, inner / 90)));
    const clip = svg.append("clipPath").attr("id", "kept-side").append("rect").attr("height", height);
    const wide = Math.max(1, x(border(per)) - x(border(0)) - 1);
    for (const [kind, clipped] of [["dropped", null], ["kept", "url(#kept-side)"]]) {
      plot.append("g").attr("clip-path", clipped).selectAll("rect").data(bars.filter((bar) => bar.value)).enter()
        .append("rect").attr("class", kind).attr("x", (bar) => x(border(bar.from)) + 0.5).attr("width", wide)
        .attr("y", (bar) => Math.min(y(bar.value), height - 1)).attr("height", (bar) => height - Math.min(y(bar.value), height - 1));
    }
    const mark = x(own.score);
    plot.append("line").attr("class", "own").attr("x1", mark).attr("x2", mark).attr("y1", 0).attr("y2", height);
    const surface = plot.append("rect").attr("class", "surface").attr("width", inner).attr("height", height).node();
    dragged(surface);
    surface.addEventListener("pointermove", (event) => {
      if (surface.hasPointerCapture(event.pointerId)) return;
      const at = nearest(x.invert(d3.pointer(event, svg.node())[0] - MARGIN.left));
      const bar = bars.find((one) => one.from <= at && at < one.to);
      if (!bar) { hideTip(); return; }
      showTip(event, `${said(border(bar.from))} to ${said(border(bar.to))}\n` +
        `${amount(bar.value, state.weight)} ${state.weight === "bytes" ? "of text" : state.weight}, ${percent(bar.value, totals[state.weight])}`);
    });
    surface.addEventListener("pointerleave", hideTip);
    const handle = plot.append("g").attr("class", "handle").attr("tabindex", 0).attr("role", "slider")
      .attr("id", "handle").attr("aria-label", "Threshold").attr("aria-orientation", "horizontal")
      .attr("aria-valuemin", data.histogram.low).attr("aria-valuemax", data.histogram.high);
    handle.append("line").attr("class", "rule").attr("y1", -4).attr("y2", height);
    handle.append("rect").attr("class", "grip").attr("x", -7).attr("y", height / 2 - 17).attr("width", 14).attr("height", 34).attr("rx", 5);
    handle.append("path").attr("class", "bars").attr("d", `M-2,${height / 2 - 7}v14M2,${height / 2 - 7}v14`);
    const label = handle.append("text").attr("y", -10);
    handle.node().addEventListener("keydown", keys);
    dragged(handle.node());
    moveHistogram = () => {
      const at = place();
      clip.attr("x", at).attr("width", Math.max(0, inner - at));
      handle.attr("transform", `translate(${at},0)`).attr("aria-valuenow", score()).attr("aria-valuetext", spoken());
      label.text(`keep ≥ ${said(score())}`).attr("text-anchor", at > inner - 70 ? "end" : at < 50 ? "start" : "middle");
    };
  }

  function drawCurve(width) {
    const inner = width - MARGIN.left - MARGIN.right, height = 190, top = 10;
    const y = d3.scaleLinear().domain([0, 1]).range([height, 0]);
    curve.attr("viewBox", `0 0 ${width} ${height + top + MARGIN.bottom}`).attr("height", height + top + MARGIN.bottom)
      .selectAll("*").remove();
    const plot = curve.append("g").attr("transform", `translate(${MARGIN.left},${top})`);
    plot.append("g").attr("class", "grid").call(d3.axisLeft(y).ticks(4).tickSize(-inner).tickFormat(""));
    plot.append("g").attr("class", "axis").call(d3.axisLeft(y).ticks(4, "%"));
    plot.append("g").attr("class", "axis").attr("transform", `translate(0,${height})`)
      .call(d3.axisBottom(x).ticks(Math.max(4, inner / 90)));
    const borders = d3.range(occupied[0], occupied[1] + 1);
    // Each curve has its name on it, each at another place, so that none has to be told by its colour.
    const PLACES = { documents: 0.12, tokens: 0.33, bytes: 0.49, precision: 0.68, recall: 0.9 };
    const named = (kind, name, value) => {
      const i = occupied[0] + Math.round(PLACES[kind] * (occupied[1] - occupied[0]));
      if (value(i) === null || value(i) === undefined) return;
      plot.append("text").attr("class", `name ${kind}`).attr("text-anchor", "middle")
        .attr("x", x(border(i))).attr("y", Math.max(y(value(i)) - 6, 8)).text(name);
    };
    for (const weight of WEIGHTS) {
      const line = d3.line().x((i) => x(border(i))).y((i) => y(totals[weight] ? above[weight][i] / totals[weight] : 0));
      plot.append("path").attr("class", `line ${weight} ${weight === state.weight ? "" : "faint"}`).attr("d", line(borders));
      named(weight, weight === "bytes" ? "text" : weight, (i) => (totals[weight] ? above[weight][i] / totals[weight] : 0));
    }
    if (data.expected) {
      for (const kind of ["precision", "recall"]) {
        const points = data.expected[kind].map((value, i) => ({ value, i }))
          .filter((point) => point.i >= occupied[0] && point.i <= occupied[1]);
        const line = d3.line().defined((point) => point.value !== null).x((point) => x(border(point.i))).y((point) => y(point.value));
        plot.append("path").attr("class", `line ${kind}`).attr("d", line(points));
        named(kind, kind, (i) => data.expected[kind][i]);
      }
    }
    plot.selectAll("text.name").raise();
    const rule = plot.append("line").attr("class", "rule").attr("y1", 0).attr("y2", height);
    const dot = plot.append("circle").attr("class", "dot").attr("r", 5.5);
    const surface = plot.append("rect").attr("class", "surface").attr("width", inner).attr("height", height).node();
    dragged(surface);
    moveCurve = () => {
      const at = place(), total = totals[state.weight];
      rule.attr("x1", at).attr("x2", at);
      dot.attr("cx", at).attr("cy", y(total ? keptOf(state.weight) / total : 0));
    };
  }

  let width = 0;
  function draw() {
    width = holder.clientWidth || width || 900;
    lead.textContent = `${many(totals.documents, "document")} that had a score and survived deduplication. Dashed line: ${own.name}.`;
    drawHistogram(width);
    drawCurve(width);
    moveHistogram();
    moveCurve();
  }
  on("view", draw);
  on("threshold", () => { moveHistogram(); moveCurve(); });
  new ResizeObserver(() => { if (Math.abs(holder.clientWidth - width) > 1) draw(); }).observe(holder);
  draw();
}

// The run's score against another one: cells of a grid, shaded by their documents, and the thresholds of both.
function makePairs() {
  if (!data.pairs.length) return;
  const part = section("pairs", "Two scores", "Documents by the run's score and by another score of the same run. The lines are both thresholds: click where they shall cross.");
  let pair = data.pairs[0], other = 0, moves = [];
  const chosen = make("span", { class: "segments" }), answer = make("p", { role: "status", id: "pair-answer" });
  const input = make("input", { id: "other-threshold", type: "number", inputmode: "decimal" });
  const map = make("figure", {}), bars = make("figure", {});
  part.append(make("div", { class: "tools" }, make("fieldset", {}, make("legend", {}, "other score"), chosen),
    make("div", {}, make("label", { for: "other-threshold" }, "its threshold"), make("br"), input)), answer,
    make("div", { class: "columns" }, map, bars));
  const right = () => pair.score_step * pair.columns, top = () => pair.step * pair.rows;
  const move = () => {
    const at = clamp(Math.round(score() / pair.score_step), 0, pair.columns), up = Math.round(other / pair.step);
    const some = (test) => d3.sum(pair.cells.filter(test), (one) => one[2]), all = some(() => true);
    const both = some((one) => one[0] >= at && one[1] >= up), first = some((one) => one[0] >= at), second = some((one) => one[1] >= up);
    answer.textContent = `${many(both, "document")} (${percent(both, all)}) with score ≥ ${(at * pair.score_step).toFixed(2)} and ${pair.name} ≥ ${other.toFixed(2)}; ` +
      `${whole(first)} with the one, ${whole(second)} with the other, of ${whole(all)} that have both scores.`;
    for (const one of moves) one();
  };
  function setOther(value) {
    other = clamp(Math.round(value / pair.step), 0, pair.rows) * pair.step;
    input.value = other.toFixed(2);
    move();
  }
  function draw() {
    const { svg, plot, x, y } = frame_(map.clientWidth || 420, [0, right()], [0, top()], "score", pair.name);
    const shade = d3.scaleLog().domain([1, Math.max(2, d3.max(pair.cells, (one) => one[2]) || 1)]).range([0.12, 1]);
    const wide = x(pair.score_step) - x(0), tall = y(0) - y(pair.step);
    plot.selectAll(".cell").data(pair.cells).enter().append("rect").attr("class", "kept").attr("fill-opacity", (one) => shade(one[2]))
      .attr("x", (one) => x(0) + one[0] * wide).attr("width", Math.max(1, wide - 0.4))
      .attr("y", (one) => y(0) - (one[1] + 1) * tall).attr("height", Math.max(1, tall - 0.4));
    const across = plot.append("line").attr("class", "rule").attr("x1", 0).attr("x2", x(right()));
    const upright = plot.append("line").attr("class", "rule").attr("y1", 0).attr("y2", y(0));
    const surface = plot.append("rect").attr("class", "surface").attr("width", x(right())).attr("height", y(0)).node();
    surface.addEventListener("click", (event) => {
      const [left, down] = d3.pointer(event, surface);
      setBorder(nearest(x.invert(left)));
      setOther(y.invert(down));
    });
    surface.addEventListener("pointermove", (event) => {
      const [left, down] = d3.pointer(event, surface);
      const place = [Math.floor(left / wide), Math.floor((y(0) - down) / tall)];
      const one = pair.cells.find((some) => some[0] === place[0] && some[1] === place[1]);
      if (!one) { hideTip(); return; }
      const range = (at, step) => `${(at * step).toFixed(2)} to ${((at + 1) * step).toFixed(2)}`;
      showTip(event, `score ${range(one[0], pair.score_step)}\n${pair.name} ${range(one[1], pair.step)}\n${many(one[2], "document")}`);
    });
    surface.addEventListener("pointerleave", hideTip);
    put(map, svg.node(), make("figcaption", {}, "The stronger its colour, the more documents a cell holds (log scale)."));
    const most = d3.max(pair.bars) || 1;
    const side = frame_(bars.clientWidth || 420, [0, top()], [0, most], pair.name, "documents");
    side.plot.selectAll(".bar-of").data(pair.bars).enter().append("rect").attr("class", "kept").attr("width", Math.max(1, side.x(pair.step) - 1))
      .attr("x", (count, i) => side.x(i * pair.step)).attr("y", (count) => side.y(count)).attr("height", (count) => side.y(0) - side.y(count));
    const rule = side.plot.append("line").attr("class", "rule").attr("y1", 0).attr("y2", side.y(0));
    put(bars, side.svg.node(), make("figcaption", {}, `${pair.name} of documents that survived deduplication.`));
    moves = [() => across.attr("y1", y(other)).attr("y2", y(other)), () => rule.attr("x1", side.x(other)).attr("x2", side.x(other)),
      () => upright.attr("x1", x(Math.min(score(), right()))).attr("x2", x(Math.min(score(), right())))];
    move();
  }
  const choose = (name) => {
    pair = data.pairs.find((one) => one.name === name);
    input.step = pair.step;
    draw();
    setOther(pair.threshold);
  };
  segments(chosen, "pair", data.pairs.map((one) => [one.name, one.name]), pair.name, choose);
  input.addEventListener("change", () => { if (input.value !== "") setOther(Number(input.value)); });
  on("threshold", move);
  choose(pair.name);
  new ResizeObserver(draw).observe(map);
}

// One small chart for each slice; each is scaled to its own highest bar.
function makeSlices() {
  if (!data.slices.length) return;
  const part = section("slices", "Slices", "Each chart is scaled to its own highest bar; the line is the threshold, the share is what it keeps.");
  const chosen = { by: data.slices[0].by, order: "size" };
  const by = make("span", { class: "segments" }), order = make("span", { class: "segments" });
  const grid = make("div", { class: "multiples" }), note = make("p", { class: "muted" });
  segments(by, "by", data.slices.map((facet) => [facet.by, facet.by]), chosen.by, (value) => { chosen.by = value; draw(); });
  segments(order, "order", [["size", "size"], ["share", "share kept"]], chosen.order, (value) => { chosen.order = value; draw(); });
  part.append(make("div", { class: "tools" },
    make("fieldset", {}, make("legend", {}, "by"), by), make("fieldset", {}, make("legend", {}, "ordered by"), order)), grid, note);
  let cards = [];

  function card(slice) {
    if (!slice.above) {
      slice.above = Object.fromEntries(WEIGHTS.map((weight) => [weight, fromTop(dense(slice, weight))]));
    }
    const width = 200, height = 62;
    const x = d3.scaleLinear().domain([border(occupied[0]), border(occupied[1])]).range([0, width]);
    const per = 10, bars = [];
    const sums = slice.above[state.weight];
    for (let i = Math.floor(occupied[0] / per) * per; i < occupied[1]; i += per) {
      bars.push([i, sums[i] - sums[Math.min(i + per, BINS)]]);
    }
    const most = d3.max(bars, (bar) => bar[1]) || 1;
    const y = state.scale === "log" ? logScale(most).range([height, 0]) : d3.scaleLinear().domain([0, most]).range([height, 0]);
    const svg = d3.create("svg").attr("viewBox", `0 -2 ${width} ${height + 20}`).attr("aria-hidden", "true");
    const area = d3.area().curve(d3.curveStepAfter).x((bar) => x(border(bar[0]))).y0(height).y1((bar) => (bar[1] ? y(bar[1]) : height));
    const shape = area([...bars, [Math.min(bars[bars.length - 1][0] + per, BINS), 0]]);
    const id = `slice-${cards.length}`;
    const clip = svg.append("clipPath").attr("id", id).append("rect").attr("y", -2).attr("height", height + 2);
    svg.append("path").attr("class", "dropped").attr("d", shape);
    svg.append("path").attr("class", "kept").attr("d", shape).attr("clip-path", `url(#${id})`);
    svg.append("g").attr("class", "axis").attr("transform", `translate(0,${height})`).call(d3.axisBottom(x).ticks(4).tickSize(3));
    const rule = svg.append("line").attr("class", "rule").attr("y1", -2).attr("y2", height);
    const share = make("span", { class: "number" });
    const move = () => {
      const at = x(clamp(score(), border(occupied[0]), border(occupied[1])));
      rule.attr("x1", at).attr("x2", at);
      clip.attr("x", at).attr("width", Math.max(0, width - at));
      share.textContent = `${percent(sums[state.at], sums[0])} kept`;
    };
    move();
    const name = foreign(slice.name, "b", { title: slice.name });
    return { move, node: make("div", { class: "multiple" }, name,
      make("div", { class: "row" }, make("span", {}, amount(sums[0], state.weight)), share), svg.node()) };
  }

  function draw() {
    const facet = data.slices.find((one) => one.by === chosen.by);
    const kept = (slice) => (slice.above ? slice.above[state.weight][state.at] / Math.max(1, slice.above[state.weight][0]) : 0);
    cards = [];
    facet.items.forEach((slice) => { cards.push({ slice, ...card(slice) }); });
    if (chosen.order === "share") cards.sort((a, b) => kept(b.slice) - kept(a.slice));
    put(grid, cards.map((one) => one.node));
    note.textContent = facet.total > facet.items.length
      ? `The ${facet.items.length} largest of ${whole(facet.total)}.` : "";
  }
  on("view", draw);
  on("threshold", () => { for (const one of cards) one.move(); });
  draw();
}
