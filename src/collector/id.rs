//! Collector ids.

/// A collector, identified by its position in the table [`ALL`](super::ALL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectorId(usize);

impl CollectorId {
    pub(super) const fn at(position: usize) -> Self {
        Self(position)
    }

    pub(crate) const fn position(self) -> usize {
        self.0
    }
}
