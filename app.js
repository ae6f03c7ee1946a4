// Scripts of the page. app.py puts this file into the page's head and calls the functions below from components.

// Hide the browser's broken-image icon: the page explains in words what is wrong with an upload. Gradio also draws the
// examples without alternative text; take it from the file names.
function onImage({target, type}) {
  if (target.tagName !== "IMG") return;
  target.style.visibility = type === "error" ? "hidden" : "";
  if (target.closest("#examples td"))
    target.alt = target.src.split("/").pop().replace(/[.]jpg$/, "").replaceAll("-", ", ");
}
document.addEventListener("error", onImage, true);
document.addEventListener("load", onImage, true);

// Let screen readers announce new answers.
function announceAnswers(element) {
  element.setAttribute("aria-live", "polite");
}

// Report the face that the user chooses. The answer is then drawn again, so the focus must be restored.
function chooseFaces(element, trigger, watch) {
  let chosen = null;
  element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-face]");
    if (!button) return;
    chosen = {photo: Number(button.dataset.photo), face: Number(button.dataset.face)};
    trigger("select", chosen);
  });
  watch("value", () => {
    if (chosen) element.querySelector(`[data-photo="${chosen.photo}"][data-face="${chosen.face}"]`)?.focus();
    chosen = null;
  });
}
