/* Search runs in a worker. Here a query such as --top_k loses its dashes, which the index has not and
   which would ask for pages without the word. */
const withoutDashes = (message) =>
  typeof message.data === "string"
    ? { ...message, data: message.data.replace(/(^|\s)-+/g, "$1") }
    : message;

/* Browsers refuse workers to a page that was opened from a folder. There, a hidden frame stands in:
   it loads the same script and hands on the same messages. */
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    frame.deliver = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
    frame.srcdoc =
      "<script>window.postMessage = (data) => frameElement.deliver(data);</script>" +
      `<script src="${url}"></script>`;
    this.window = new Promise((resolve) => {
      frame.addEventListener("load", () => resolve(frame.contentWindow), { once: true });
    });
    document.body.append(frame);
  }

  async postMessage(data) {
    (await this.window).dispatchEvent(new MessageEvent("message", { data }));
  }

  terminate() {}
}

if (location.protocol === "file:") window.Worker = window.IFrameWorker = FrameWorker;
window.Worker = class extends window.Worker {
  postMessage(message) {
    super.postMessage(withoutDashes(message));
  }
};
