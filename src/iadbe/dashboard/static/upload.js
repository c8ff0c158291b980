// Sends a zip of images, saying how far it is; tells what the server made of it.
import { byId, sentence } from "./work.js";

export function uploads(done) {
  const form = byId("upload-form");
  if (!form) return;
  const [bar, said, button] = [byId("upload-progress"), byId("upload-said"), form.querySelector("button")];
  byId("upload-file").addEventListener("change", () => {
    const [name, file] = [byId("upload-name"), byId("upload-file").files[0]];
    if (file && !name.value) name.value = file.name.replace(/\.zip$/i, "").toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^[^a-z0-9]+/, "").slice(0, 40);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const request = new XMLHttpRequest(); // fetch cannot tell how much it has sent
    request.open("POST", "/api/v1/datasets");
    request.setRequestHeader("X-IADBE", "1");
    request.responseType = "json";
    request.upload.onprogress = (e) => {
      bar.value = e.lengthComputable ? e.loaded / e.total : 0;
      if (e.loaded === e.total) tell("Unpacking and looking at the images …");
    };
    request.onload = () => {
      over();
      if (request.status === 201) {
        form.reset();
        tell("");
        done(request.response);
      } else tell(sentence(request.response?.detail || `the server answered ${request.status}.`), true);
    };
    request.onerror = () => {
      over();
      tell("The server cannot be reached.", true);
    };
    bar.hidden = false;
    button.disabled = true;
    tell("Sending …");
    request.send(new FormData(form));
  });

  function over() {
    bar.hidden = true;
    button.disabled = false;
  }

  function tell(text, wrong = false) {
    said.textContent = text;
    said.classList.toggle("wrong", wrong);
  }
}
