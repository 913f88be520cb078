//! The service of one connection.

use std::convert::Infallible;

use hyper::{Request, Response, body::Incoming, service::Service};

/// Answers the requests of one connection.
pub trait ConnectionService<B>:
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
    + Send
    + 'static
{
}

impl<B, S> ConnectionService<B> for S where
    S: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + 'static
{
}
