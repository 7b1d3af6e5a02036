mod client;
mod command_line;
mod server;
mod together;
