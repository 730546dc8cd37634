//! A vector in pages.

use std::ops::{Index, IndexMut};

use super::memory::{Mover, buffer};

/// The number of elements of a full page.
const PAGE: usize = 1 << SHIFT;
const SHIFT: usize = 10;

/// A vector in pages of 1,024 elements. It grows by a page and shrinks by a page. So no push and no pop moves more than the
/// elements of one page, and a vector that has become short gives its memory back.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    /// The first page. It grows as vectors do: nearly all have few elements, and no other page. To find such a page among the others
    /// would cost each access five instructions, and an open lease and its end make thirty.
    first: Vec<T>,
    /// All are full, but for the last one with elements. Behind it there is at most one page without any.
    others: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages {
            first: Vec::new(),
            others: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Pages<T> {
    /// The number of elements.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.others.iter().flatten())
    }

    /// The first element.
    #[inline(always)]
    pub fn first(&self) -> Option<&T> {
        self.first.first()
    }

    /// The element at a place.
    pub fn get(&self, at: usize) -> Option<&T> {
        let other = || {
            self.others
                .get((at >> SHIFT).checked_sub(1)?)?
                .get(at % PAGE)
        };
        self.first.get(at).or_else(other)
    }

    fn page(&mut self, page: usize) -> &mut Vec<T> {
        match page {
            0 => &mut self.first,
            page => &mut self.others[page - 1],
        }
    }

    /// Adds an element behind the others.
    pub fn push(&mut self, element: T) {
        let page = self.len >> SHIFT;
        if page > self.others.len() {
            self.others.push(Vec::with_capacity(PAGE));
        }
        self.page(page).push(element);
        self.len += 1;
    }

    /// Takes out the last element.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        let page = last >> SHIFT;
        let element = self.page(page).pop();
        self.len = last;
        // An empty page stays until the one before it is half empty: else a vector could free and allocate it in turn.
        if last % PAGE == PAGE / 2 {
            self.others.truncate(page);
            shrink(&mut self.others);
        }
        if page == 0 {
            shrink(&mut self.first);
        }
        element
    }

    /// Takes out an element, and puts the last one in its place.
    pub fn swap_remove(&mut self, at: usize) -> Option<T> {
        let last = self.pop()?;
        Some(match at == self.len {
            true => last,
            false => std::mem::replace(&mut self[at], last),
        })
    }

    /// Lets the mover move the pages.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.first);
        by.vec(&mut self.others);
        self.others.iter_mut().for_each(|page| by.vec(page));
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.first) + buffer(&self.others) + self.others.iter().map(buffer).sum::<usize>()
    }
}

/// Gives half of the room back, if a quarter is used.
fn shrink<T>(vec: &mut Vec<T>) {
    if vec.capacity() > 16 && vec.len() * 4 <= vec.capacity() {
        vec.shrink_to(vec.len() * 2);
    }
}

// The first page is asked without a look at PAGE: it has no more elements than that, and the bounds of a vector are checked anyway.
impl<T> Index<usize> for Pages<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, at: usize) -> &T {
        match self.first.get(at) {
            Some(element) => element,
            None => &self.others[(at >> SHIFT).wrapping_sub(1)][at % PAGE],
        }
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    #[inline(always)]
    fn index_mut(&mut self, at: usize) -> &mut T {
        match self.first.get_mut(at) {
            Some(element) => element,
            None => &mut self.others[(at >> SHIFT).wrapping_sub(1)][at % PAGE],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector() {
        let (mut pages, mut plain) = (Pages::default(), Vec::new());
        for round in 0..4 {
            for i in 0..3 * PAGE + round {
                pages.push(i);
                plain.push(i);
            }
            for i in 0..2 * PAGE {
                match i % 3 {
                    0 => assert_eq!(pages.pop(), plain.pop()),
                    _ => {
                        let at = i % plain.len();
                        assert_eq!(pages.swap_remove(at), Some(plain.swap_remove(at)));
                    }
                }
            }
            assert_eq!(
                pages.iter().collect::<Vec<_>>(),
                plain.iter().collect::<Vec<_>>()
            );
            assert_eq!((pages.len(), pages.first()), (plain.len(), plain.first()));
            assert_eq!(pages.get(plain.len()), None);
        }
        while plain.pop().is_some() {
            assert!(pages.pop().is_some());
        }
        assert!(pages.len() == 0 && pages.pop().is_none());
    }

    #[test]
    fn a_short_one_gives_its_memory_back() {
        let mut pages = Pages::default();
        (0..100 * PAGE as u64).for_each(|i| pages.push(i));
        assert!(pages.heap_bytes() < 102 * PAGE * 8);
        while pages.len() > PAGE {
            pages.pop();
        }
        assert!(pages.heap_bytes() < 3 * PAGE * 8);
        while pages.len() > 1 {
            pages.pop();
        }
        assert!(pages.heap_bytes() < 4096, "{}", pages.heap_bytes());
    }
}
