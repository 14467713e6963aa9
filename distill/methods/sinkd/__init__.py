"""SinKD: a Sinkhorn distance between the outputs of a whole batch beside the usual losses (arXiv 2402.17110)."""
