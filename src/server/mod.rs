//! The composition root: wires everything together, and knows the order of start and stop.
