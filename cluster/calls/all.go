package calls

import "context"

// AskAll runs ask for each of them at once and hands the answers to take as they come, one after
// the other in the goroutine of the caller. If take says that it has enough, the context of the
// others ends. It returns when all have answered, so ask must end with its context.
func AskAll[T, A any](ctx context.Context, of []T, ask func(ctx context.Context, one T) (A, error), take func(one T, answer A, err error) (enough bool)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type said struct {
		one    T
		answer A
		err    error
	}
	answers := make(chan said, len(of))
	for _, one := range of {
		go func() {
			s := said{one: one}
			s.answer, s.err = ask(ctx, one)
			answers <- s
		}()
	}
	enough := false
	for range of {
		if s := <-answers; !enough && take(s.one, s.answer, s.err) {
			enough = true
			cancel()
		}
	}
}
