"use strict";
// Before anything is drawn: the colours that were chosen last; without a choice they follow the system.
try {
  const chosen = localStorage.getItem("iadbe-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // a browser that keeps nothing follows the system
}
