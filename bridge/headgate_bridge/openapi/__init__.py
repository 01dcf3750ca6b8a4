"""Makes generated/openapi.json, the OpenAPI 3.1 document of the REST API, from the protos.

A development tool, like `headgate_bridge.generate`, which calls it; the service does not import it. What is read:

- the compiled protos with their comments: paths, schemas, descriptions, examples (`operations`, `schemas`, `comments`);
- Envoy's copy of them: the parameters that a query may have (`descriptor`);
- the server's tables: every reason of an error, the fields that REST leaves out, the vendors' endpoints;
- `tables`: what no proto says, such as the media types of bodies that no message describes;
- `examples.yaml` and `vendors/`: requests that really work, and the contracts of the vendors. Tests send and compare
  them.
"""

from headgate_bridge.openapi.document import document

__all__ = ["document"]
