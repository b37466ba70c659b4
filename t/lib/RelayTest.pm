# RelayTest.pm - drives t/unit/relay_pipe: pairs of sockets through the relay engine, spliced, copied, and with small messages copied
package RelayTest;
use strict;
use warnings;
use Exporter 'import';
use HyperTest qw(:DEFAULT send_all reset_socket);
use IO::Socket qw(SHUT_WR);
use Test::More;

our @EXPORT = qw(both_modes pair end_of reset_socket half_close send_all pipes_of);

$SIG{PIPE} = 'IGNORE';

# Runs the test once for each way of moving bytes, with a fresh engine.
sub both_modes {
	my ($code, %env) = @_;
	for my $mode ($ENV{T_COPY} ? 'copy' : ('splice', 'small', 'copy')) {
		my $d = start("relay-$mode-" . (++$RelayTest::n), [ build() . '/t/unit/relay_pipe' ],
			env => { T_COPY => $mode eq 'copy' ? 1 : 0, T_COPY_SMALL => $mode eq 'small' ? 1 : 0, %env });
		is($d->ready('mode'), $mode, "engine in $mode mode");
		my $fds = $d->fds;
		$code->($d, $mode);
		# Idle pipes may stay in the pool: 4 of them, two descriptors each.
		ok(wait_until(sub { $d->fds <= $fds + 8 }), "$mode: no descriptor is left") or diag($d->fds, " after $fds");
		is($d->stop, 0, "$mode: the engine ends cleanly");
		unlike($d->log_text, qr/counts .*pipes_used=[1-9]/, "$mode: no pipe is in use at the end");
	}
	hyper_done();
}

# Two sockets that the engine joined, and the pair's number.
sub pair {
	my ($d) = @_;
	my $id = ++$d->{pairs};
	my ($a, $b) = map { connect_to($d->ready($_)) } qw(a b);
	defined $d->wait_log(qr/joined id=$id$/) or die "pair $id was not joined";
	return ($a, $b, $id);
}

# { reason, ab, ba } of a pair, undef when it did not end in time.
sub end_of {
	my ($d, $id, $seconds) = @_;
	my $line = $d->wait_log(qr/ end id=$id (.*)$/, $seconds) // return undef;
	return { map { split /=/ } split / /, $line };
}

sub half_close { my ($s) = @_; shutdown($s, SHUT_WR) or die "shutdown: $!"; return }

# Pipe ends that a process has open.
sub pipes_of { my ($d) = @_; my $p = $d->pid; return scalar grep { (readlink($_) // '') =~ /^pipe:/ } glob "/proc/$p/fd/*" }

1;
