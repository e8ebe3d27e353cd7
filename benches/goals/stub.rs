pub fn serve(_: usize, _: u64) {}
