//! The network between members: the only tonic peer server and client.
