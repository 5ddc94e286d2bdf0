// Elements and numbers in words, for every page. Text is only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const grouped = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
function whole(value) { return grouped.format(value); }
function compact(value) { return Math.abs(value) < 100000 ? grouped.format(value) : spaced(value); }
function spaced(value) { return short.format(value).replace("K", " k").replace(/([MBT])$/, " $1"); }
function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) { bytes /= 1000; unit++; }
  return `${unit ? bytes.toPrecision(3) : bytes} ${units[unit]}`;
}
function amount(value, weight) { return weight === "bytes" ? size(value) : compact(value); }
function percent(part, of) {
  if (!of) return "-";
  const share = (100 * part) / of;
  return `${share > 0 && share < 0.1 ? share.toPrecision(1) : share.toFixed(1)} %`;
}
function many(count, one, more) { return `${whole(count)} ${count === 1 ? one : more || `${one}s`}`; }

// Elements. Children are nodes or text; text never becomes markup. Attributes named on* are listeners.
function make(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
function put(node, ...children) { node.replaceChildren(...children.flat().filter((child) => child !== null)); return node; }
function foreign(text, name = "span", attributes = {}) {
  return make(name, { dir: "auto", ...attributes, class: `foreign ${attributes.class || ""}`.trim() }, text);
}
function table(columns, rows, { textColumns = [0], now = -1, label = "" } = {}) {
  const kind = (i) => (textColumns.includes(i) && i > 0 ? "text" : null);
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label || columns.join(", ") },
    make("table", {},
      make("thead", {}, make("tr", {}, columns.map((column, i) => make("th", { scope: "col", class: kind(i) }, column)))),
      make("tbody", {}, rows.map((row, r) => make("tr", { class: r === now ? "now" : null },
        row.map((cell, i) => make("td", { class: kind(i) }, cell)))))));
}
function section(id, title, lead, { short: label = title } = {}) {
  const part = make("section", { id, "aria-labelledby": `${id}-title` },
    make("h2", { id: `${id}-title` }, title), lead ? make("p", { class: "muted" }, lead) : null);
  document.getElementById("main").append(part);
  document.getElementById("nav").append(make("a", { href: `#${id}` }, label));
  return part;
}
function segments(holder, name, options, chosen, choose) {
  put(holder, options.map(([value, label]) => make("label", {},
    make("input", { type: "radio", name, value, checked: value === chosen, onchange: () => choose(value) }), label)));
}
function legend(...entries) {
  return make("div", { class: "legend" }, entries.map(([swatch, label]) => make("span", { class: `swatch-${swatch}` }, label)));
}
function makeTheme() {
  const button = document.getElementById("theme");
  const themes = [["light dark", "Auto", "as the system"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];
  let chosen = 0;
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % themes.length;
    const [value, label, long] = themes[chosen];
    document.documentElement.style.colorScheme = value;
    button.textContent = label;
    button.setAttribute("aria-label", `Colours: ${long}`);
  });
}
function makeHead(name, subtitle) {
  document.getElementById("name").textContent = name;
  document.getElementById("name").dir = "auto";
  document.getElementById("subtitle").textContent = subtitle;
  makeTheme();
}
