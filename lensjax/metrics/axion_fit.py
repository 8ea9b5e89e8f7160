def fit_axion(*a, **k): raise NotImplementedError
