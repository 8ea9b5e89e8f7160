def fit_potential(*a, **k): raise NotImplementedError
