//! A sorted copy-on-write map. Copies are cheap, so a scrape can copy the store and release the lock quickly.

use std::fmt;
use std::sync::Arc;

use crate::exposition::Block;

/// Maximum number of entries in a block. Changing an entry copies at most one block, and copying the map copies only
/// the list of blocks. With blocks of 64 entries, either operation takes about a microsecond for a map of ten thousand
/// entries.
const BLOCK_ENTRIES: usize = 64;

/// A sorted map that consists of blocks. Copies share each block until it changes.
#[derive(Clone, Debug)]
pub(super) struct CowMap<K, V>(Vec<Arc<Vec<(K, V)>>>);

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|block| block.len()).sum()
    }

    /// Returns the entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0
            .iter()
            .flat_map(|block| block.iter())
            .map(|(key, value)| (key, value))
    }

    /// Returns the keys in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the values in the order of their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Returns the keys with mutable references to their values.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let blocks = self.0.iter_mut().flat_map(|block| Arc::make_mut(block).iter_mut());
        blocks.map(|(key, value)| (&*key, value))
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// Returns a key as it was inserted, and its value.
    pub(super) fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let block = self.0.get(self.block_of(key))?;
        let position = position(block, key).ok()?;
        block.get(position).map(|(key, value)| (key, value))
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.block_of(key);
        let block = self.0.get_mut(at)?;
        let position = position(block, key).ok()?;
        Arc::make_mut(block).get_mut(position).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Inserts a value, and returns the value that it replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.block_of(&key);
        let Some(block) = self.0.get_mut(at).map(Arc::make_mut) else {
            self.0.push(Arc::new(vec![(key, value)]));
            return None;
        };
        match position(block, &key) {
            Ok(index) => block.get_mut(index).map(|(_, stored)| std::mem::replace(stored, value)),
            Err(index) => {
                block.insert(index, (key, value));
                if block.len() > BLOCK_ENTRIES {
                    // If entries are inserted in order, as at startup, blocks are filled completely.
                    let keep = if index == BLOCK_ENTRIES {
                        index
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

    /// Removes and returns a value.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.block_of(key);
        let block = self.0.get_mut(at)?;
        let index = position(block, key).ok()?;
        let (_, value) = Arc::make_mut(block).remove(index);
        if block.is_empty() {
            self.0.remove(at);
        }
        Some(value)
    }

    /// Removes the entries for which `keep` returns false.
    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        for block in &mut self.0 {
            if !block.iter().all(|(key, _)| keep(key)) {
                Arc::make_mut(block).retain(|(key, _)| keep(key));
            }
        }
        self.0.retain(|block| !block.is_empty());
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the index of the block that contains a key, or into which the key would be inserted.
    fn block_of(&self, key: &K) -> usize {
        let starts_before = |block: &Arc<Vec<(K, V)>>| block.first().is_some_and(|(first, _)| first <= key);
        self.0.partition_point(starts_before).saturating_sub(1)
    }
}

impl<K, V> CowMap<K, V>
where
    K: fmt::Debug + Send + Sync + 'static,
    V: fmt::Debug + Send + Sync + 'static,
    Vec<(K, V)>: Block,
{
    /// Returns the blocks for a snapshot.
    pub(super) fn blocks(&self) -> Vec<Arc<dyn Block>> {
        let blocks = self.0.iter().map(|block| Arc::clone(block) as Arc<dyn Block>);
        blocks.collect()
    }
}

fn position<K: Ord, V>(block: &[(K, V)], key: &K) -> Result<usize, usize> {
    block.binary_search_by(|(stored, _)| stored.cmp(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn map_equals_a_sorted_map(changes in proptest::collection::vec((0..400_u16, any::<Option<u8>>()), 0..1500)) {
            let (mut cow, mut map) = (CowMap::default(), BTreeMap::new());
            for (key, value) in changes {
                match value {
                    Some(value) => prop_assert_eq!(cow.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(cow.remove(&key), map.remove(&key)),
                }
                prop_assert_eq!(cow.get(&key), map.get(&key));
            }
            prop_assert!(cow.iter().eq(map.iter()));
            prop_assert_eq!(cow.len(), map.len());
            prop_assert!(cow.0.iter().all(|block| (1..=BLOCK_ENTRIES).contains(&block.len())));
            cow.retain(|key| key % 3 == 0);
            map.retain(|key, _| key % 3 == 0);
            prop_assert!(cow.iter().eq(map.iter()));
        }
    }

    #[test]
    fn copy_is_not_changed_by_the_original() {
        let mut cow = CowMap::default();
        for key in 0..1000 {
            cow.insert(key, key);
        }
        assert_eq!(cow.0.len(), 1000_usize.div_ceil(BLOCK_ENTRIES));
        let copy = cow.clone();
        for (key, value) in cow.iter_mut().filter(|(key, _)| **key < 10) {
            *value = key + 1;
        }
        cow.remove(&500);
        assert!(copy.values().copied().eq(0..1000));
        assert_eq!((cow.len(), cow.get(&3)), (999, Some(&4)));
    }
}
