pub fn run(_: &str, _: usize, _: usize) {}
