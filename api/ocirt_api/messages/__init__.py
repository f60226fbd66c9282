"""Messages of a shim, as classes that need no protobuf; see `ocirt_api.message`. One module for each subject."""
