// Uploads a zip of images, with progress.
import { byId, capitalized } from "./tools.js";

export function uploads(done) {
  const form = byId("upload-form");
  if (!form) return;
  const [bar, message, button] = [byId("upload-progress"), byId("upload-message"), form.querySelector("button")];
  byId("upload-file").addEventListener("change", () => {
    const [name, file] = [byId("upload-name"), byId("upload-file").files[0]];
    if (file && !name.value) name.value = file.name.replace(/\.zip$/i, "").toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^[^a-z0-9]+/, "").slice(0, 40);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const request = new XMLHttpRequest(); // fetch does not report upload progress
    request.open("POST", "/api/v1/datasets");
    request.setRequestHeader("X-IADBE", "1");
    request.responseType = "json";
    request.upload.onprogress = (e) => {
      bar.value = e.lengthComputable ? e.loaded / e.total : 0;
      if (e.loaded === e.total) showMessage("Unpacking and checking the images …");
    };
    request.onload = () => {
      over();
      if (request.status === 201) {
        form.reset();
        showMessage("");
        done(request.response);
      } else showMessage(capitalized(request.response?.detail || `the server answered ${request.status}.`), true);
    };
    request.onerror = () => {
      over();
      showMessage("The server cannot be reached.", true);
    };
    bar.hidden = false;
    button.disabled = true;
    showMessage("Sending …");
    request.send(new FormData(form));
  });

  function over() {
    bar.hidden = true;
    button.disabled = false;
  }

  function showMessage(text, wrong = false) {
    message.textContent = text;
    message.classList.toggle("wrong", wrong);
  }
}
