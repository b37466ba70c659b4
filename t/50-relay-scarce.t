#!/usr/bin/perl
# Guards: without a descriptor for a pipe, or with pipes smaller than wanted, pairs move their bytes all the same.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Test::More;

my $data = join '', map { chr($_ % 251) } 1 .. 500_000;

for my $case ([ 'no descriptor is left', T_NO_FDS => 1 ], [ 'pipes of an impossible size', T_PIPE_SIZE => 2**31 - 1 ],
	[ 'pipes of one page', T_PIPE_SIZE => 4096 ], [ 'no pipe is kept', T_PIPES => 0 ]) {
	my ($what, %env) = @$case;
	my $d = start("relay-" . (keys %env)[0] . '-' . (values %env)[0], [ build() . '/t/unit/relay_pipe' ],
		env => { T_COPY => 0, %env });
	my $pipes = pipes_of($d);
	my ($a, $b, $id) = pair($d);
	for my $x ([ $a, $b ], [ $b, $a ]) {
		my $pid = fork // die "fork: $!";
		if (!$pid) {
			send_all($x->[0], $data);
			half_close($x->[0]);
			POSIX::_exit(0);
		}
		my ($got, $how) = read_to_end($x->[1]);
		is($how, 'eof', "$what: the end came");
		ok($got eq $data, "$what: all bytes came");
		waitpid $pid, 0;
	}
	is_deeply(end_of($d, $id), { reason => 'closed', ab => 500_000, ba => 500_000 }, "$what: a clean end");
	is(pipes_of($d), $pipes, "$what: no pipe is open") if $env{T_NO_FDS} || exists $env{T_PIPES};
	is($d->stop, 0, "$what: the engine ends cleanly");
}
hyper_done();
