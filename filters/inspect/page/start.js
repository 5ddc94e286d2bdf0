// Puts the page together.
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
document.getElementById("name").textContent = data.run.name;
document.getElementById("name").dir = "auto";
document.getElementById("subtitle").textContent = data.run.subtitle;
makeTheme();
makeBar();
makeScores();
// The threshold can be dragged from here on; the other sections follow one by one, so that the page never stands still.
document.documentElement.dataset.usable = String(Math.round(performance.now()));
const sections = [makeSolver, makeSlices, makeDocuments, makeDuplicates, makeLedger, makeTrust, makeLineage];
function next() {
  const making = sections.shift();
  if (making) { making(); setTimeout(next); return; }
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
  const asked = document.getElementById(location.hash.slice(1));
  if (asked) asked.scrollIntoView();
}
setTimeout(next);
