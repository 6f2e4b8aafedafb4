# The built-in rules; no lifetime and no grace but what responses say (the parameters are in peers.rs).
vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "{origin}"; }
