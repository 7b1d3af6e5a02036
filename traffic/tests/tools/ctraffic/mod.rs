mod analysis;
mod command_line;
mod disturbed;
mod together;
mod udp;
