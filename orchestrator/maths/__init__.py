"""Pure tensor functions: no model, no options, no logging, no device moves."""
