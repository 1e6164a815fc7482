// What the address says after # goes along: browsers keep it over the answer's redirect.
document.querySelector("form").action = `/login${location.hash}`;
