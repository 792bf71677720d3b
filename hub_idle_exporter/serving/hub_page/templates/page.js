// Two things that need a script, and nothing depends on: the Hub's choice of light or dark, and
// times of day as the clock of whoever reads this has them.
"use strict";
try {
  const theme = localStorage.getItem("jupyterhub-bs-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // it may not be read: the system's choice stays
}
addEventListener("DOMContentLoaded", () => {
  for (const time of document.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    const near = Math.abs(moment - Date.now()) < 18 * 3600 * 1000;
    const day = near ? {} : { day: "numeric", month: "short" };
    time.textContent = moment.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
  }
});
