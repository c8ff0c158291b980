"use strict";
addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({
    url: "/api/v1/openapi.json",
    dom_id: "#api",
    deepLinking: true,
    validatorUrl: null, // it would ask a foreign server
    requestInterceptor: (request) => {
      request.headers["X-IADBE"] = "1";
      return request;
    },
  });
});
