// Reloads this page when a file of the application has changed.
(() => {
  const key = "wsgate-serve";
  const own = new URL(document.currentScript.src).search.slice(1);
  const events = new EventSource("/.wsgate/live");
  events.onmessage = ({ data }) => {
    // Each change reloads a page once, even if a cache returns the old page again.
    if (data !== own && sessionStorage.getItem(key) !== data) {
      sessionStorage.setItem(key, data);
      location.reload();
    }
  };
  addEventListener("pagehide", () => events.close());
})();
