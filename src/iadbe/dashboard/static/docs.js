"use strict";
addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({
    url: "/api/v1/openapi.json",
    dom_id: "#api",
    deepLinking: true,
    validatorUrl: null, // the default sends the document to another server
    requestInterceptor: (request) => {
      request.headers["X-IADBE"] = "1";
      return request;
    },
  });
});
