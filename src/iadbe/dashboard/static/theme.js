"use strict";
// Applies the last chosen theme before anything is drawn; without a choice, the theme of the system.
try {
  const chosen = localStorage.getItem("iadbe-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // without storage, the theme of the system
}
