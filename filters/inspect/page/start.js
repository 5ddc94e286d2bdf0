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
makeSolver();
makeSlices();
makeDocuments();
makeDuplicates();
makeLedger();
makeTrust();
makeLineage();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
