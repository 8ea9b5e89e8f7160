def fit_free(*a, **k): raise NotImplementedError
