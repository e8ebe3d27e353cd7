//! A sorted map whose copy is cheap, so that a scrape can take everything with it and let go of the lock.

use std::fmt;
use std::sync::Arc;

use crate::exposition::Block;

/// The most entries of a block. A change copies the block that it falls in, a copy of the map counts its blocks: at 64,
/// both are about a microsecond's work at ten thousand entries.
const BLOCK_ENTRIES: usize = 64;

/// A sorted map in blocks that copies share until one of them changes.
#[derive(Clone, Debug)]
pub(super) struct Shelf<K, V>(Vec<Arc<Vec<(K, V)>>>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Clone, V: Clone> Shelf<K, V> {
    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|block| block.len()).sum()
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0
            .iter()
            .flat_map(|block| block.iter())
            .map(|(key, value)| (key, value))
    }

    /// All keys in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All entries, their values to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let blocks = self.0.iter_mut().flat_map(|block| Arc::make_mut(block).iter_mut());
        blocks.map(|(key, value)| (&*key, value))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// A key as it was put in, and its value.
    pub(super) fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let block = self.0.get(self.block_of(key))?;
        let position = position(block, key).ok()?;
        block.get(position).map(|(key, value)| (key, value))
    }

    /// The value of a key, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.block_of(key);
        let block = self.0.get_mut(at)?;
        let position = position(block, key).ok()?;
        Arc::make_mut(block).get_mut(position).map(|(_, value)| value)
    }

    /// Whether there is a value of a key.
    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value in; the one that it replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.block_of(&key);
        let Some(block) = self.0.get_mut(at).map(Arc::make_mut) else {
            self.0.push(Arc::new(vec![(key, value)]));
            return None;
        };
        match position(block, &key) {
            Ok(found) => block.get_mut(found).map(|(_, held)| std::mem::replace(held, value)),
            Err(place) => {
                block.insert(place, (key, value));
                if block.len() > BLOCK_ENTRIES {
                    // What is filled in order, as at a start, fills its blocks.
                    let keep = if place == BLOCK_ENTRIES {
                        place
                    } else {
                        BLOCK_ENTRIES / 2
                    };
                    let upper = block.split_off(keep);
                    self.0.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.block_of(key);
        let block = self.0.get_mut(at)?;
        let found = position(block, key).ok()?;
        let (_, value) = Arc::make_mut(block).remove(found);
        if block.is_empty() {
            self.0.remove(at);
        }
        Some(value)
    }

    /// Drops the entries that do not pass.
    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        for block in &mut self.0 {
            if !block.iter().all(|(key, _)| keep(key)) {
                Arc::make_mut(block).retain(|(key, _)| keep(key));
            }
        }
        self.0.retain(|block| !block.is_empty());
    }

    /// Drops all entries.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The block that a key is in, or would be put in.
    fn block_of(&self, key: &K) -> usize {
        let after = |block: &Arc<Vec<(K, V)>>| block.first().is_some_and(|(first, _)| first <= key);
        self.0.partition_point(after).saturating_sub(1)
    }
}

impl<K, V> Shelf<K, V>
where
    K: fmt::Debug + Send + Sync + 'static,
    V: fmt::Debug + Send + Sync + 'static,
    Vec<(K, V)>: Block,
{
    /// Its blocks, for a picture.
    pub(super) fn blocks(&self) -> Vec<Arc<dyn Block>> {
        let blocks = self.0.iter().map(|block| Arc::clone(block) as Arc<dyn Block>);
        blocks.collect()
    }
}

fn position<K: Ord, V>(block: &[(K, V)], key: &K) -> Result<usize, usize> {
    block.binary_search_by(|(held, _)| held.cmp(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(changes in proptest::collection::vec((0..400_u16, any::<Option<u8>>()), 0..1500)) {
            let (mut shelf, mut map) = (Shelf::default(), BTreeMap::new());
            for (key, value) in changes {
                match value {
                    Some(value) => prop_assert_eq!(shelf.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(shelf.remove(&key), map.remove(&key)),
                }
                prop_assert_eq!(shelf.get(&key), map.get(&key));
            }
            prop_assert!(shelf.iter().eq(map.iter()));
            prop_assert_eq!(shelf.len(), map.len());
            prop_assert!(shelf.0.iter().all(|block| (1..=BLOCK_ENTRIES).contains(&block.len())));
            shelf.retain(|key| key % 3 == 0);
            map.retain(|key, _| key % 3 == 0);
            prop_assert!(shelf.iter().eq(map.iter()));
        }
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut shelf = Shelf::default();
        for key in 0..1000 {
            shelf.insert(key, key);
        }
        assert_eq!(shelf.0.len(), 1000_usize.div_ceil(BLOCK_ENTRIES));
        let copy = shelf.clone();
        for (key, value) in shelf.iter_mut().filter(|(key, _)| **key < 10) {
            *value = key + 1;
        }
        shelf.remove(&500);
        assert!(copy.values().copied().eq(0..1000));
        assert_eq!((shelf.len(), shelf.get(&3)), (999, Some(&4)));
    }
}
