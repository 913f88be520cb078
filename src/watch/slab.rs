//! A slab: a map that assigns small integer keys and reuses freed ones.

#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(value);
                at
            }
            None => {
                let at =
                    u32::try_from(self.slots.len()).expect("four billion do not fit in memory");
                self.slots.push(Some(value));
                at
            }
        }
    }

    pub fn remove(&mut self, at: u32) -> Option<T> {
        let removed = self.slots.get_mut(at as usize)?.take();
        if removed.is_some() {
            self.free.push(at);
        }
        if self.free.len() == self.slots.len() {
            *self = Slab::default();
        }
        removed
    }

    pub fn get(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(at, slot)| Some((at as u32, slot.as_ref()?)))
    }
}

/// For keys that are known to be in use.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        self.get(at).expect("the key is in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        let slot = self.slots.get_mut(at as usize).and_then(Option::as_mut);
        slot.expect("the key is in use")
    }
}
